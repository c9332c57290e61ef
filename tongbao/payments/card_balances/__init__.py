"""What a card has: asked of its issuer at a terminal, and kept nowhere."""
