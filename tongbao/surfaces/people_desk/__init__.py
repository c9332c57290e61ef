"""People at the operators' console: found masked, shown in the clear with a reason."""
