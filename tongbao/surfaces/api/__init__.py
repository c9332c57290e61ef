"""The merchant API: routes that belong to no single domain, and what is mounted beside it."""
