"""People: users of the licensed firm, who hold accounts here and not at a merchant."""
