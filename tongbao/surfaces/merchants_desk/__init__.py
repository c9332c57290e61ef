"""Merchants in the console: who they are, who brought them, their stores, people and shop."""
