"""Bank transfers by files: orders go to the bank in a folder, and what it booked comes in one."""
