"""Differences as cases: what to do, who does it, until when, and posting them by four eyes."""
