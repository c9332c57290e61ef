"""Cards over ISO 8583: an acquirer's or a switch's host, spoken to over TCP."""
