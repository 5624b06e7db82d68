"""TODO."""

import numpy as np

from dqas_lib.training.features import unit_rows


def shrunk(weights: np.ndarray, shrink: float) -> np.ndarray:
    """(C,) shares that sum to 1: weights >= 0 (all zero: equal), mixed with equal shares by `shrink` in [0, 1]."""
    total = weights.sum()
    share = weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
    return (1 - shrink) * share + shrink / len(weights)


def shares_by_gain(gain: np.ndarray, counts: np.ndarray, exponent: float = 0.5) -> np.ndarray:
    """(C,) shares of the counts at which all classes would gain equally from one more image. [ours]

    gain: error reduction an added image of each class brings now, at `counts` images; it falls as n^-(1 + exponent) (a
    power-law learning curve), so equal gains are reached at n_c in proportion to counts_c gain_c^(1 / (1 + exponent)).
    A gain <= 0 is noise about zero: such a class gets nothing new.
    """
    return np.maximum(counts, 1) * np.maximum(gain, 0) ** (1 / (1 + exponent))


def spread(
    scores: np.ndarray, features: np.ndarray, n_picks: int, taken: np.ndarray | None = None, diversity: float = 1.0
) -> np.ndarray:
    """n_picks of the rows, best score first, none like another: positions in the order picked.

    scores: (n,) larger is better, >= 0; features: (n, d); taken: (m, d) features of what is selected already. Greedy:
    the next pick has the largest score * distance^diversity, where distance in [0, 1] is (1 - cosine) / 2 to the
    nearest one picked or taken: a duplicate has none. diversity = 0 ranks by the score alone. Ties to the first row.
    """
    if diversity == 0:
        return np.argsort(-scores, kind="stable")[:n_picks]
    z = unit_rows(features)
    nearest = np.full(len(z), -1.0, dtype=np.float32)
    if taken is not None and len(taken):
        nearest = (z @ unit_rows(taken).T).max(axis=1)
    left = np.ones(len(z), dtype=bool)
    picked = []
    for _ in range(min(n_picks, len(z))):
        distance = np.clip((1 - nearest.astype(np.float64)) / 2, 0, 1)
        distance[distance < 1e-6] = 0  # float32 rounding of a duplicate
        # where only duplicates are left, the score decides among them
        worth = np.where(left, np.maximum(scores, 0) * distance**diversity, -1.0)
        pick = int(worth.argmax())
        if worth[pick] <= 0:
            pick = int(np.where(left, scores, -np.inf).argmax())
        picked.append(pick)
        left[pick] = False
        nearest = np.maximum(nearest, z @ z[pick])
    return np.asarray(picked, dtype=np.int64)
