"""TODO active."""
