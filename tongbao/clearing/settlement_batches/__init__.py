"""Settlements of everybody that are drawn, looked at and let go together."""
