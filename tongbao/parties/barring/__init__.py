"""Bars of people who rented, lent, sold or faked accounts: set and ended by two people."""
