"""What authors write with: the `workflow` and `activity` objects, signals, options."""
