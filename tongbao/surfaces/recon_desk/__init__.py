"""The desk of reconciliation in the console: the calendar of days, and differences as cases."""
