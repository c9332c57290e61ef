"""Pay out what was settled, through our bank, once."""
