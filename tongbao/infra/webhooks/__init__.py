"""Webhooks: telling a merchant's server what happened, signed, for three days if need be."""
