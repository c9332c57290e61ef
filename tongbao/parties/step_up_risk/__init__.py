"""What else than the amount asks a person for more proof: signals by dated rule, and why it did."""
