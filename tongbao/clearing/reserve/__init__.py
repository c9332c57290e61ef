"""Reserve funds (备付金): customers' money is covered at banks, proved day by day."""
