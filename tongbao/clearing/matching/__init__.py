"""Matching the rows of two statements by rules that are data: one with one, and many with many."""
