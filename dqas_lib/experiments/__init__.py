"""Experiments: select or make training sets, train and evaluate on them, and compare at equal budgets."""
