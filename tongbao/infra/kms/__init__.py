"""Keys: master keys behind a port, and the sealing keys they wrap."""
