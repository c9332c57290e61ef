"""Keys at the command line: what there is, the ceremony of a new one, and the end of one."""
