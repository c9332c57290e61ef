"""Price plans: what payments cost merchants, by version, and how each fee is worked out."""
