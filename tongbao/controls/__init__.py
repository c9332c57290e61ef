"""May they? Four eyes, the law's limits, working days, retention, the audit log's proofs."""
