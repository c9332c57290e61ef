"""Afterwards: bills and their match, settlement, payouts, statements, disputes, reserve funds."""
