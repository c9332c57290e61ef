"""The platform's own wallet: no network, so only its error map is here; payments pay by it."""
