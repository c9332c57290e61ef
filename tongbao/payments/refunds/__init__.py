"""Refunds: money given back, never more than came in."""
