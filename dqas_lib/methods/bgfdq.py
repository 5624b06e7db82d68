"""BGFDQ: dataset quantization without bins, by the nearest neighbors of every image."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.methods.cal import nearest_neighbors
from dqas_lib.methods.submodular import first_best
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class BGFDQ:
    """Bin-generation-free dataset quantization's neighbor-aware selection. [Deng et al., CVPR 2026; details ours]

    Definition: within a class, find every image's k nearest neighbors; take the image that covers most of what is not
    covered yet (itself and its neighbors), and so on; when all is covered, begin again with what is not chosen. The
    paper says "k-nearest neighbors", "coverage" and "redundancy removed"; the greedy cover, k = n/B - 1 rounded up (so
    that B images could just cover the class) and ties to the image closest to its neighbors are [ours].
    Its other half, a share of dropped patches for each image by semantic offset, is an option of `dqas_lib.patches`.
    neighbors: k, or None for the rule above. Needs: features. Cost: O(n^2 d) in blocks, then O(n) a pick.
    """

    name: ClassVar[str] = "bgfdq"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    balance: str = "proportional"
    neighbors: int | None = None

    def __post_init__(self) -> None:
        check_balance(self.balance)
        if self.neighbors is not None and self.neighbors < 1:
            raise InputError(f"neighbors must be at least 1, or None; got {self.neighbors!r}")

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)

        def pick(members: np.ndarray, count: int) -> np.ndarray:
            k = self.neighbors or max(1, -(-len(members) // count) - 1)
            return greedy_cover(pool.features[members], k, count)

        return Choice(in_each_group(pool, budget, self.balance, pick))


def greedy_cover(features: np.ndarray, k: int, n_picks: int) -> np.ndarray:
    """(n_picks,) greedy picks that cover the k-nearest-neighbor graph of (n, d) features, layer after layer."""
    n = len(features)
    near = nearest_neighbors(features, k)
    if not near.shape[1]:
        return np.arange(n_picks)
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    closeness = np.mean([np.einsum("ij,ij->i", unit, unit[column]) for column in near.T], axis=0)
    covers = np.column_stack([np.arange(n), near])  # row j: what j covers
    order = np.argsort(covers.ravel(), kind="stable")
    coverers = np.split(order // covers.shape[1], np.cumsum(np.bincount(covers.ravel(), minlength=n))[:-1])
    open_ = np.ones(n, dtype=bool)
    taken = np.zeros(n, dtype=bool)
    gain = np.full(n, float(covers.shape[1]))
    picked = np.empty(n_picks, dtype=np.int64)
    for number in range(n_picks):
        if not open_.any():
            open_ = ~taken
            gain = open_[covers].sum(axis=1).astype(np.float64)
        # a closeness lies in [-1, 1], so a quarter of it never outweighs one image more that is covered
        pick = first_best(np.where(taken, -np.inf, gain + 0.25 * closeness), 1e-7)
        picked[number] = pick
        taken[pick] = True
        for item in covers[pick][open_[covers[pick]]]:
            gain[coverers[item]] -= 1
        open_[covers[pick]] = False
    return picked
