"""Payments and their attempts, from the merchant's request to money in the book."""
