"""Developers who signed up for the sandbox by themselves, and how they come in."""
