"""Scenes a shop sells in: the counter and the restaurant table, from ordering to the review."""
