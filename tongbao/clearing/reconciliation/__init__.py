"""Is the channel's bill what we hold and what the ledger says? Every difference has a name."""
