"""Console pages of what is made of ordinary payments: several in one go, and fees of car parks."""
