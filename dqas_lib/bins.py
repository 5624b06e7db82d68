"""Stage 3, bins: GraphCut and DQ's recursive bins, class by class. [DQ, Section 3; paper, Section 3]

Kernel s_ij = 1/2 + 1/2 cos(z_i, z_j). Gain of adding j to S out of the pool V:
    lambda * sum_{i in V} s_ij - 2 * sum_{i in S} s_ij,
so the first picks are typical of the pool and later ones unlike those already picked. DQ fills a bin of n/N images
greedily, removes them from the pool and starts again with S empty: early bins are dense, late ones sparse.

With unit features, sum_{i in S} s_ij = |S|/2 + z_j . sum_S z / 2: the gain is z_j . w plus what is equal for all j,
with w = (lambda/2) sum_V z - sum_S z. Nothing is quadratic in n. All sums are float64: in float32 the picks begin to
differ after some 60. Gains within TIE of each other count as equal and go to the lowest position.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from dqas_lib.errors import InputError
from dqas_lib.features import unit_rows

TIE = 1e-12  # gains that differ by less than this, times the size of the pool, count as equal: rounding is far smaller
_BLOCK = 192  # rows whose scores are kept exact between two looks at the whole pool
_GRID = np.linspace(0.0, 1.0, 5)  # where the bound on all other rows is worked out, as shares of its reach


def greedy_graph_cut(features: np.ndarray, n_picks: int, *, lambda_val: float = 1.0) -> np.ndarray:
    """Greedy order of `n_picks` rows under GraphCut with the pool V = all rows.

    features: (n, d) unit rows (or zero rows). Gives (n_picks,) int64 positions in the order picked. Memory O(n d); a
    pick costs one small matrix-vector product, and the whole pool is looked at only every few dozen picks.

    How looks are saved: with a pick p, the score z_j . w falls by z_j . z_p. Between two looks the best _BLOCK rows are
    kept exact. Any other row is bounded: split the sum of the picks since the look into m u along the pool's mean
    direction u and a rest E across it. Row j has fallen by m (z_j . u) + z_j . E, where |z_j . E| is at most
    |z_j - (z_j . u) u| |E|. While the best exact score lies above the largest bound, the pick is the one that looking
    at all rows would give.
    """
    if not 0 <= n_picks <= len(features):
        raise InputError(f"n_picks must lie between 0 and the {len(features)} rows; got {n_picks!r}")
    z = np.ascontiguousarray(features, dtype=np.float64)
    total = z.sum(axis=0)
    length = np.linalg.norm(total)
    direction = total / length if length > 0 else total
    along = z @ direction
    across = np.sqrt(np.maximum(np.einsum("ij,ij->i", z, z) - along * along, 0.0))
    tie = TIE * max(1, len(z))
    w = 0.5 * lambda_val * total
    picked = np.empty(n_picks, dtype=np.int64)
    taken = np.zeros(len(z), dtype=bool)
    done = 0
    while done < n_picks:
        scores = z @ w
        scores[taken] = -np.inf
        for pick in _certain_picks(z, scores, along, across, direction, tie):
            picked[done] = pick
            taken[pick] = True
            w -= z[pick]
            done += 1
            if done == n_picks:
                break
    return picked


def _certain_picks(
    z: np.ndarray, scores: np.ndarray, along: np.ndarray, across: np.ndarray, direction: np.ndarray, tie: float
) -> Iterator[int]:
    """Picks that follow from one look: exact `scores` of all rows, -inf for taken ones. At least one."""
    best = scores.max()
    first = int(np.flatnonzero(scores >= best - tie)[0])
    top = np.argpartition(-scores, _BLOCK)[:_BLOCK] if len(scores) > _BLOCK else np.arange(len(scores))
    block = np.union1d(top[np.isfinite(scores[top])], [first])
    zb, sb = z[block], scores[block]
    others = np.isfinite(scores)
    others[block] = False
    bound = _Bound(scores[others], along[others], across[others]) if others.any() else None
    moved, rest = 0.0, np.zeros_like(direction)
    chosen = int(np.searchsorted(block, first))
    while True:
        yield int(block[chosen])
        sb[chosen] = -np.inf
        row = zb[chosen]
        sb -= zb @ row
        share = row @ direction
        moved += share
        rest += row - share * direction
        best = sb.max()
        if best == -np.inf or (bound is not None and bound(moved, np.sqrt(rest @ rest)) >= best - tie):
            return
        chosen = int(np.argmax(sb >= best - tie))


class _Bound:
    """Upper bound of max_j (score_j - m along_j + e across_j) over the rows outside the block, for growing e.

    For a fixed e the maximum is convex in m, so the chord between two values of m lies above it. Both are worked out on
    a grid that doubles when it is left: a few vector operations a look instead of one a pick.
    """

    def __init__(self, scores: np.ndarray, along: np.ndarray, across: np.ndarray) -> None:
        self.scores, self.along, self.across = scores, along, across
        self.reach_m, self.reach_e = 8.0, 1.0
        self._work_out()

    def _work_out(self) -> None:
        lifted = self.scores + self.reach_e * self.across
        self.values = [(lifted - m * self.along).max() for m in _GRID * self.reach_m]

    def __call__(self, m: float, e: float) -> float:
        if m < 0:
            return np.inf
        if m > self.reach_m or e > self.reach_e:
            while m > self.reach_m:
                self.reach_m *= 2
            while e > self.reach_e:
                self.reach_e *= 1.5
            self._work_out()
        place = m / self.reach_m * (len(_GRID) - 1)
        left = min(int(place), len(_GRID) - 2)
        share = place - left
        return (1 - share) * self.values[left] + share * self.values[left + 1]


@dataclass(frozen=True, eq=False)
class Bins:
    """DQ's bins of every class.

    bin: (N,) int64 bin number of each image within its class, 0 the first (densest); rank: (N,) greedy rank within its
    bin; n_bins: how many bins were asked for (a class with fewer images has fewer).
    """

    bin: np.ndarray
    rank: np.ndarray
    n_bins: int

    def order(self, members: np.ndarray) -> np.ndarray:
        """The given positions (of one class) in greedy order: bin by bin, rank by rank."""
        return members[np.lexsort((self.rank[members], self.bin[members]))]


def recursive_bins(features: np.ndarray, n_bins: int, *, lambda_val: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Bins of one class: (n,) bin numbers and (n,) ranks.

    features: (n, d) unit rows. Bin sizes differ by at most one, larger ones first; with fewer images than bins every
    image is a bin of its own. Raises InputError unless n_bins is a whole number >= 1.
    """
    if not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise InputError(f"n_bins must be a whole number >= 1; got {n_bins!r}")
    n = len(features)
    z = np.ascontiguousarray(features, dtype=np.float64)
    left = np.arange(n)
    numbers, ranks = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    for number in range(min(n_bins, n)):
        size = n // n_bins + (number < n % n_bins)
        order = greedy_graph_cut(z[left], size, lambda_val=lambda_val)
        numbers[left[order]] = number
        ranks[left[order]] = np.arange(size)
        left = np.delete(left, order)
    return numbers, ranks


def make_bins(
    features: np.ndarray, labels: np.ndarray, n_bins: int = 10, *, lambda_val: float = 1.0, progress: bool = False
) -> Bins:
    """Recursive GraphCut bins of every class. [DQ: 10 bins]

    features: (N, d), scaled to unit rows here; labels: (N,). Raises InputError for NaN or infinite features.
    """
    z = unit_rows(features)
    if len(z) != len(labels):
        raise InputError(f"{len(z)} features need as many labels; got {len(labels)}")
    numbers, ranks = np.zeros(len(z), dtype=np.int64), np.zeros(len(z), dtype=np.int64)
    for label in tqdm(np.unique(labels), desc="bins, class by class", disable=not progress, leave=False):
        members = np.flatnonzero(labels == label)
        numbers[members], ranks[members] = recursive_bins(z[members], n_bins, lambda_val=lambda_val)
    return Bins(numbers, ranks, n_bins)
