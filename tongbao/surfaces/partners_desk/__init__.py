"""What operators see of the open bank's partners, and the commands about them."""
