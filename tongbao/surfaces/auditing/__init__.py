"""How the books are proved and explained: commands for whoever audits them."""
