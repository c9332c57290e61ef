"""How fast a big day is compared."""
