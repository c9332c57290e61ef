"""How the platform is reached: API, hosted pages, consoles, phones, open bank, command line."""
