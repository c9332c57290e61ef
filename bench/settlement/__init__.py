"""How long it takes to settle everybody's day, ours beside merchant by merchant."""
