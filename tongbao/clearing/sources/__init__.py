"""Statements of anybody, read by layouts that are data."""
