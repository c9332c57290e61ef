"""What becomes of money that was set aside: captured, voided, or let go when its time is over."""
