"""UnionPay's aggregated QR (Qra): one code for every wallet, over XML with a shared key."""
