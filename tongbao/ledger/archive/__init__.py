"""The journal by months: made ahead, sealed, moved to files with their digests, and back."""
