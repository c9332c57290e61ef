"""What customers sign so that merchants may take money without asking each time (签约, 代扣)."""
