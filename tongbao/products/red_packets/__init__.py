"""Red packets (红包): money for a group of people, taken by whoever is quick."""
