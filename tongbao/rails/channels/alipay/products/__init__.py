"""What Alipay does beside collecting: shares, payouts, agreements, car parks."""
