"""Samples of a round: the candidates of the largest utility, spread out [ours]."""

import numpy as np

from dqas_lib.active.round import View
from dqas_lib.training.features import unit_rows


def pick(view: View, utility: np.ndarray, members: np.ndarray, n_picks: int, diversity: float) -> np.ndarray:
    """The n_picks of (m,) members of the largest utility, spread out in the feature space of one of the learners.

    They are kept apart from each other and from the images of their classes selected so far. Where some utility is
    below 0, as reductions of an estimator are, only its order counts.
    """
    if diversity == 0:
        return members[np.argsort(-utility, kind="stable")[:n_picks]]
    features, taken = view.any_learners().features[0], view.selected
    if view.labels_known:
        taken = taken[np.isin(view.labels[taken], view.labels[members])]
    if utility.min() < 0:
        utility = np.argsort(np.argsort(utility, kind="stable"), kind="stable") / len(utility)
    return members[spread(utility, features[members], n_picks, features[taken], diversity)]


def spread(
    scores: np.ndarray, features: np.ndarray, n_picks: int, taken: np.ndarray | None = None, diversity: float = 1.0
) -> np.ndarray:
    """Places of n_picks of (n, d) rows in the order picked, best of (n,) scores first, none like another [ours].

    Greedy: the next pick has the largest score * distance^diversity, where distance in [0, 1] is (1 - cosine) / 2 to
    the nearest one picked or (m, d) taken: a duplicate has none. Diversity 0 ranks by the score alone. Ties go to the
    first row; where only duplicates are left, or scores <= 0, the score alone decides.
    """
    z, left = unit_rows(features), np.ones(len(features), dtype=bool)
    picked: list[int] = []
    nearest = np.full(len(z), -1.0, dtype=np.float32)
    if taken is not None and len(taken):
        nearest = (z @ unit_rows(taken).T).max(axis=1)
    for _ in range(min(n_picks, len(z))):
        distance = np.clip((1 - nearest.astype(np.float64)) / 2, 0, 1)
        distance[distance < 1e-6] = 0  # float32 rounding of a duplicate
        utility = np.where(left, np.maximum(scores, 0) * distance**diversity, -1.0)
        best = int((utility if utility.max() > 0 else np.where(left, scores, -np.inf)).argmax())
        picked.append(best)
        left[best] = False
        nearest = np.maximum(nearest, z @ z[best])
    return np.asarray(picked, dtype=np.int64)
