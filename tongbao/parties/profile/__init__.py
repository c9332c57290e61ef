"""A merchant's own profile: who it is, what it pays, over which channels it collects."""
