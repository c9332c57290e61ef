"""Wallets as a service: a merchant's app opens accounts of ours for its own users."""
