"""Over what? The channels money travels on."""
