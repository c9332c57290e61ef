"""Rules of opening and binding: dated figures with their source, changed by two people."""
