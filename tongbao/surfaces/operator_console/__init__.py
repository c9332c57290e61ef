"""The operator console: what the platform's own people see and do, in a browser."""
