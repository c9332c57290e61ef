"""Checkouts: an amount to be paid on a page of ours, by whichever way the customer chooses."""
