"""A channel's bill on its way into rows: what each line says, and what they add up to."""
