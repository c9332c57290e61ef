"""Papers about settlements and payouts that tie to the ledger to the fen."""
