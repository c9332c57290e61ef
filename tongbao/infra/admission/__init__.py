"""Who is let in: how a request proves whose it is, that it is new, and how much may be asked."""
