"""The vault: the one place that has card numbers, and the tokens that stand for them elsewhere."""
