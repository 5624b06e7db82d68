"""The reproduction: a profile's notebooks, executed as a grid of papermill runs, on this machine or on a cluster."""
