"""The request log: what a merchant's programs asked of the API, for whoever writes them."""
