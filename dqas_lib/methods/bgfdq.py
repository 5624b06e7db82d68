"""BGFDQ: dataset quantization without bins, by the nearest neighbors of every image."""

from dataclasses import dataclass

import numpy as np

from dqas_lib.core.checks import whole_number
from dqas_lib.methods.base import GroupMethod, register
from dqas_lib.methods.cal import nearest_neighbors
from dqas_lib.methods.greedy import greedy
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class BGFDQ(GroupMethod, name="bgfdq", needs=("features",)):
    """No bins: each pick covers most neighbors not covered yet [Deng et al., CVPR 2026; details ours].

    Definition: per class, pick the image that with its k nearest neighbors covers most of what is not covered yet, ties
    to the image closest to its neighbors; when all is covered, begin again with what is not selected. The paper says
    "k-nearest neighbors", "coverage", "redundancy removed"; the greedy cover is [ours]. neighbors: k, or None for
    n/B - 1 rounded up, so that B images could just cover the class [ours]. Its other half, dropped patches per image by
    semantic offset, is in `dqas_lib.patches`. Needs: features. Cost: O(n^2 d), then O(n) per pick.
    """

    neighbors: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbors is not None:
            whole_number("neighbors (None: as the budget says)", self.neighbors)

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """See `GroupMethod.pick`."""
        return greedy_cover(pool.features[rows], self.neighbors or max(1, -(-len(rows) // count) - 1), count)


def greedy_cover(features: np.ndarray, k: int, n_picks: int) -> np.ndarray:
    """(n_picks,) greedy picks that cover the k-nearest-neighbor graph of (n, d) features, layer after layer."""
    n = len(features)
    near = nearest_neighbors(features, k)
    if not near.shape[1]:
        return np.arange(n_picks)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    # a closeness lies in [-1, 1], so a quarter of it never outweighs one image more that is covered
    closeness = 0.25 * np.mean([np.einsum("ij,ij->i", unit, unit[column]) for column in near.T], axis=0)
    covers = np.column_stack([np.arange(n), near])  # row j: what j covers
    order = np.argsort(covers.ravel(), kind="stable")
    coverers = np.split(order // covers.shape[1], np.cumsum(np.bincount(covers.ravel(), minlength=n))[:-1])
    left, uncovered = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    count = np.full(n, float(covers.shape[1]))
    gain = count + closeness

    def update(pick: int) -> None:
        left[pick] = False
        for item in covers[pick][uncovered[covers[pick]]]:
            count[coverers[item]] -= 1
        uncovered[covers[pick]] = False
        if not uncovered.any():
            uncovered[:] = left
            count[:] = uncovered[covers].sum(axis=1)
        np.add(count, closeness, out=gain)

    return greedy(gain, n_picks, update, tie=1e-7)
