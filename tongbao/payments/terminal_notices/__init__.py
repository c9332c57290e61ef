"""What the machines on the counter are told of payments: to say it aloud, and to print it."""
