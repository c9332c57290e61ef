"""How many payments a second the whole way takes: HTTP, signature, commit, answer."""
