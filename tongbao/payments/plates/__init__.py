"""Code plates (码牌): a printed code on a counter that opens the cashier, whoever scans it."""
