"""Explorers: what DQAS does when a ratio, the fraction of patches dropped, a budget or a round is moved.

Each is made from results that are there already: tidy rows, selections, masks, fitted curves. What cannot be shown
becomes a `frames.Missing` with one sentence that says what to run.
"""
