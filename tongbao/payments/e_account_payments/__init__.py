"""Merchants' payments out of people's electronic accounts, and what is given back of them."""
