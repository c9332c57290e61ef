"""Car parks (停车): a car drives in, leaves, and its fee is taken as its owner agreed."""
