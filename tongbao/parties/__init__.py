"""Who? Merchants and their staff, operators, people and their accounts, partners, keys, cards."""
