"""What a payment over a channel costs in processor time, beside its own cryptography."""
