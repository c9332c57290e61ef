"""How the platform is reached: API, operator console, command line."""
