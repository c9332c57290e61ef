"""Keys to real money: an operator makes, widens and ends one with four eyes."""
