"""Virtual cards: numbers of the firm's own that pay from a person's electronic account."""
