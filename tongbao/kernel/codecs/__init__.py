"""Formats of others, read and written as values: no I/O, and nothing of ours in them."""
