"""Customers' complaints at WeChat Pay (消费者投诉 2.0)."""
