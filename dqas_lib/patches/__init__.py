"""TODO patches."""
