"""Partners of the open bank: third parties that two operators have taken on."""
