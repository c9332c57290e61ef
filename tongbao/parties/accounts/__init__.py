"""The platform's own wallets, for licensed firms: balances, top-ups, payment codes."""
