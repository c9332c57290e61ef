"""Keys: master keys behind a port, and the data keys they wrap."""
