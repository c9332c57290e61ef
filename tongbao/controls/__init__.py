"""May they? Risk, limits and approvals, asked before money moves."""
