"""How people prove who they are, and how strongly an act of theirs must be confirmed."""
