"""Our keys at channels for real money: added and replaced with four eyes."""
