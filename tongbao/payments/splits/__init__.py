"""Splits: shares of a payment for others, given once, taken back, never more than there is."""
