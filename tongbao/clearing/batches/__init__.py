"""Batches: a day's totals compared with a channel that sends no bill (轧账)."""
