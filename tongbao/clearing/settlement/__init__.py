"""Close a merchant's day: what is owed becomes due, to the fen."""
