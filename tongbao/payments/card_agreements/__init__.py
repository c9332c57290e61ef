"""Agreements that people sign with a bank card of theirs, and what is taken from it under them."""
