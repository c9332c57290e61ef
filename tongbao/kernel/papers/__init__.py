"""Papers that people read: tables and pages that are written, and pictures that are looked at."""
