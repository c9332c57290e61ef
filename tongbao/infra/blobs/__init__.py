"""Blobs: documents too large for a row, kept encrypted in a folder or at an S3-compatible store."""
