"""Legal limits: dated rows that say what may be moved, and meters that count what was."""
