"""Which channel takes a payment, and why: rules, live health, limits, and a log that says so."""
