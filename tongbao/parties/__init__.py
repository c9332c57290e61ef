"""Who? Merchants, operators, wallets and their keys."""
