"""Afterwards: reconciliation, settlement, payouts."""
