"""What channels tell us: stored raw, answered, then processed from the store."""
