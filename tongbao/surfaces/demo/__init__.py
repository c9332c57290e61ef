"""The demo: one trading day of a shop, played through the public API against the sandbox."""
