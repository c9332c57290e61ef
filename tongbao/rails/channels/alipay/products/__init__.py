"""Alipay beside collecting: refunds, shares, payouts, agreements, car parks."""
