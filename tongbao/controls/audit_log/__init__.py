"""The audit log proves itself: a Merkle tree over its entries, signed every minute."""
