"""The shop: orders that are approved, paid and shipped by a workflow."""
