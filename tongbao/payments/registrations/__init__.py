"""Registrations: an opened merchant is taken on at each channel, which has a word of its own."""
