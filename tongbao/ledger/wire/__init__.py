"""How doors of other processes reach the poster of a book: frames over a local socket."""
