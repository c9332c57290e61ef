"""The book: accounts and transfers behind one door, `Ledger.submit`."""
