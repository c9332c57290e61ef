"""Four eyes: what is dangerous is proposed by one person and approved by another."""
