"""Merchants: who they are, what they pay us, which channel accounts serve them."""
