"""Tables of card numbers' beginnings, by hand."""
