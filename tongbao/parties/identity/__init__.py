"""Who is calling: merchants' API keys, and operators with password, second factor and session."""
