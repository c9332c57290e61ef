"""Registers that know who people are: residents, phones, cards, tax, social security."""
