"""What a merchant asks to be collected, and on which terms that is."""
