"""Batch transfers: a merchant pays many people, row by row of a file, out of what it is owed."""
