"""The command line: `tongbao …`, for operators and for machines (``--json``)."""
