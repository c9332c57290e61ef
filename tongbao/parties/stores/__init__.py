"""Stores: where a merchant sells, under its own numbers, each with its place."""
