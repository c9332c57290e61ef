"""A small shop, a counter and a restaurant table: what is sold, what is left, and who has paid."""
