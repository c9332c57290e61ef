"""The banks of people's cards, reached over the card host and the bank that pays out."""
