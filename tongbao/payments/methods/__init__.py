"""The ways of paying, as merchants ask for them."""
