"""The open bank over HTTP: an OAuth 2 server to FAPI 2.0, its pages, and people's accounts."""
