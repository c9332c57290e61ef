"""The HTTP edge: who calls, what they may send, and how refusals are told. No business."""
