"""What the first digits of a card number tell: kind, issuer and brand."""
