"""BGFDQ: dataset quantization without bins, by the nearest neighbors of every image."""

from dataclasses import dataclass

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import GroupMethod, Pick, register
from dqas_lib.methods.cal import nearest_neighbors
from dqas_lib.methods.greedy import greedy
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class BGFDQ(GroupMethod, name="bgfdq", needs=("features",)):
    """Bin-generation-free dataset quantization's neighbor-aware selection [Deng et al., CVPR 2026; details ours].

    Definition: within a class, find every image's k nearest neighbors; take the image that covers most of what is not
    covered yet (itself and its neighbors), and so on; when all is covered, begin again with what is not selected. The
    paper says "k-nearest neighbors", "coverage" and "redundancy removed"; the greedy cover, k = n/B - 1 rounded up (so
    that B images could just cover the class) and ties to the image closest to its neighbors are [ours].
    Its other half, a fraction of dropped patches per image by semantic offset, is an option of `dqas_lib.patches`.
    neighbors: k, or None for the rule above. Needs: features. Cost: O(n^2 d) in blocks, then O(n) per pick.
    """

    neighbors: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbors is not None and self.neighbors < 1:
            raise InputError(f"neighbors must be at least 1, or None; got {self.neighbors!r}")

    def picker(self, pool: Pool) -> Pick:
        """See `GroupMethod.picker`."""
        return lambda members, count: greedy_cover(
            pool.features[members], self.neighbors or max(1, -(-len(members) // count) - 1), count
        )


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
