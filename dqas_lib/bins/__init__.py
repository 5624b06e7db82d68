"""Stages 2 and 3: GraphCut, DQ's recursive bins of every class, and the same on a GPU."""
