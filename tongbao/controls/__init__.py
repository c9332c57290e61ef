"""Controls: whether something may be done at all, and on which day."""
