"""One red packet, tens of thousands of people: ours beside the usual ways, in one run."""
