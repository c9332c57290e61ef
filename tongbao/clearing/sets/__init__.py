"""Comparing whole sets of rows outside the database: what agrees need not be stored."""
