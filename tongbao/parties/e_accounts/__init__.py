"""Electronic accounts of people: classes I to III of a bank and of a payment institution."""
