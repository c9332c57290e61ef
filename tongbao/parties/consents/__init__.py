"""What people let partners see and do: consents, the grants on them, and payments by them."""
