"""What notebooks need and stages do not: figures in one style, the outputs of a run, and what a call costs."""
