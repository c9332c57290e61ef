"""Fees worked out again: that each is what its plan says, and what another plan would have cost."""
