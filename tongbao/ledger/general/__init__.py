"""The general ledger: vouchers from the journal, trial balances, accounting days."""
