"""What helps whoever writes a program against the API: events at hand, things made to happen."""
