"""Chargebacks: what a scheme takes back, what is set aside meanwhile, and how it ends."""
