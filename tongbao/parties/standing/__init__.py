"""Standing: what a merchant may do at present, changed by two people, and how it leaves."""
