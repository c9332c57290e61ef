"""Four eyes at the console and the command line: the inbox, the suspense desk, the calendar."""
