"""Terminals: the machines on merchants' counters, from the box they come in to the scrap heap."""
