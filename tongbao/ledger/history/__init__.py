"""How an account came to what it holds, told from its own chain of transfers."""
