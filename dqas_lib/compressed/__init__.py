"""TODO compressed."""
