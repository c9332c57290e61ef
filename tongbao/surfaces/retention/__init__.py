"""How long evidence is kept, for people: at the command line and in the console."""
