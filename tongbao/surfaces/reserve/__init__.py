"""The reserve for people in finance: a calendar of proofs in the console, and commands."""
