"""A day compared as it goes on, slice by slice, by digest (分时对账)."""
