"""One step of a flow above: what is written of it, and what is posted, together."""
