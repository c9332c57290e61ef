"""Fees at the command line: work them out again, try other prices, propose them."""
