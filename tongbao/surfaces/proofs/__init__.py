"""How proofs are reached: receipts in the API, keys for everybody, commands for the operator."""
