"""Proofs: a Merkle tree over each book, signed checkpoints, receipts anybody can check."""
