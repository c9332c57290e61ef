"""What was agreed with merchants about settlement, and what keeps money back from them."""
