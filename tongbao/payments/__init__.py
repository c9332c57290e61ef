"""The flow: payments, refunds, splits, agreements, routing, and the chase of what is unknown."""
