"""What a channel is: what it is asked, what it may answer, what it tells us, and its bills."""
