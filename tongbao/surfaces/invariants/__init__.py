"""The invariants of the house: run, kept as lights, and shown."""
