"""Figures that count from a day on, changed by two people: one act over what a row looks like."""
