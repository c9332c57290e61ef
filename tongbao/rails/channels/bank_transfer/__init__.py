"""Payouts by bank credit transfer: ISO 20022 messages over HTTPS."""
