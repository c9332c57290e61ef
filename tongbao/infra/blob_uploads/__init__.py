"""Blobs on their way to a row: begun, named, or taken away again."""
