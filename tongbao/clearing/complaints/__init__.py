"""Complaints: what customers say to a channel about a payment, and what is answered."""
