"""Customers' complaints at Alipay (交易投诉)."""
