"""The suspense desk: money without a home, item by item, and adjustments by hand."""
