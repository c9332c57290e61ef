"""Routing as people meet it: commands, and what a draft would have done with past traffic."""
