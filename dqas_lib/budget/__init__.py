"""TODO budget."""
