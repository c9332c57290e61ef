"""Wallets as a service: the routes of a merchant's app, and the pages of the bank alone."""
