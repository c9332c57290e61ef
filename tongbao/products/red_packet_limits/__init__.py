"""What a red packet may be from a day on: figures that two people agree to."""
