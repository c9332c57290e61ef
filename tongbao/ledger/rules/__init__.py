"""What may be booked, as data: the chart of accounts and the posting rules."""
