"""The flow: collecting payments and giving refunds, and the chase of what is unknown."""
