"""What stands between the callers and the posters: names become numbers, repeats are answered."""
