"""The console's room for settlement: batches, files for banks, batch transfers."""
