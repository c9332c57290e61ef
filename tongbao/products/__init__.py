"""What is built on top of payments: each product alone, none knowing another."""
