"""Payment codes that a phone makes without network, from a secret it was given while it had one."""
