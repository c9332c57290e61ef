"""Bank cards that people bind to their account, verified by their banks."""
