"""Networks, recipes, training, and what trained networks say about images."""
