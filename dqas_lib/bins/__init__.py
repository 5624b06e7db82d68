"""TODO bins."""
