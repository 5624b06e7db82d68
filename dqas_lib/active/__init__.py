"""Stage 5, active rounds: which classes, and which samples, lower the validation error most."""
