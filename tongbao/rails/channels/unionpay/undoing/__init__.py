"""What UnionPay undoes instead of giving it back."""
