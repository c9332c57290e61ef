"""Terminals for people of the platform: pages of the console, and commands."""
