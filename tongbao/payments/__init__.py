"""The flow: payment, attempt, refund, and the chase of what is unknown."""
