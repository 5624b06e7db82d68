"""Features that are hard to cut: rectified, with duplicates, with exact ties and zero rows, far from the origin."""

import numpy as np


def cloud(n: int, d: int, seed: int, kind: str) -> np.ndarray:
    """(n, d) float64 rows around a random center."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + rng.normal(size=d)
    if kind == "relu":
        x = np.maximum(x, 0)
    elif kind == "duplicates":
        x = x[rng.integers(0, max(1, n // 4), size=n)]
    elif kind == "grid":
        x = np.round(x)  # many exact ties and zero rows
    elif kind == "tight":
        x = 10 + 0.1 * x
    return x
