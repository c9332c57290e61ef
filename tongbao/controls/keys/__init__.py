"""Master keys under dual control: two custodians make one, two people end a sealing key."""
