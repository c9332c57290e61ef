"""Tongbao (通宝): mobile payment and financial services on one double-entry ledger."""
