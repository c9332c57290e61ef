"""Money between books: cross-book movements, split accounts, accounts that move."""
