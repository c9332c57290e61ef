"""Layouts and matching rules as dated data: changed by two people, run every day."""
