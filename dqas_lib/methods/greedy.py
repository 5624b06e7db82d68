"""Greedy search, once for every method that uses it: pick the candidate of the largest gain, update the gains, again.

Gains closer than a rounding error count as equal and go to the lowest position. Those of facility location, f(S) =
sum_i max_{j in S} s_ij with s >= 0, can only shrink, so a gain worked out earlier is an upper bound: a candidate is
looked at again only when its bound could win (Minoux). The picks are those of the plain greedy.
"""

from collections.abc import Callable

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.training.gradients import Gradients

TIE = 1e-12

# of half a symmetric kernel: in float64 for n <= 8,191, in float32 for n <= 11,584 (near-ties may then fall otherwise)
KEEP_BYTES = 2**28
_BLOCK = 128
Columns = Callable[[np.ndarray], np.ndarray]


def greedy(gain: np.ndarray, n_picks: int, update: Callable[[int], object], *, tie: float = TIE) -> np.ndarray:
    """Greedy order of `n_picks` of n candidates, (n_picks,) int64; what is picked is not picked again.

    gain: (n,) float64 gains of a first pick; update: called with every pick, changes `gain` in place to the gains of
    the next one; tie: gains closer than this count as equal. InputError when n_picks does not lie between 0 and n.
    """
    if not 0 <= n_picks <= len(gain):
        raise InputError(f"n_picks must lie between 0 and the {len(gain)} rows; got {n_picks!r}")
    picked = np.empty(n_picks, dtype=np.int64)
    taken = np.zeros(len(gain))  # minus infinity once picked
    for k in range(n_picks):
        left = gain + taken
        picked[k] = pick = int((left >= left.max() - tie).argmax())
        taken[pick] = -np.inf
        update(pick)
    return picked


def greedy_graph_cut_gradients(gradients: Gradients, n_picks: int, *, lambda_val: float = 1.0) -> np.ndarray:
    """Greedy GraphCut order of `n_picks` gradients, as `greedy_graph_cut` of the vectors, in O(n (C + d)) per pick."""
    g, h, tie = gradients.g, gradients.h, TIE * max(1, len(gradients))
    scores = 0.5 * lambda_val * gradients.against(gradients.total())
    return greedy(scores, n_picks, lambda p: np.subtract(scores, (g @ g[p]) * (h @ h[p]), out=scores), tie=tie)


def greedy_facility_location(columns: Columns, n: int, n_picks: int) -> np.ndarray:
    """Greedy order of `n_picks` of n candidates under facility location, (n_picks,) int64.

    columns: positions (b,) -> (n, b) symmetric similarities >= 0 of every item to those candidates.
    """
    columns, bounds = _kept(columns, n)
    tie = TIE * max(1.0, bounds.max(initial=0.0))
    covered, taken = np.zeros(n), np.zeros(n, dtype=bool)

    def update(pick: int) -> None:
        """Look at the candidates whose bound could win, a few at a time, until the best gain is exact."""
        taken[pick] = True
        if taken.sum() == n_picks:
            return
        np.maximum(covered, columns(np.array([pick]))[:, 0], out=covered)
        fresh, size = np.zeros(n, dtype=bool), 8
        while True:
            best = bounds[fresh & ~taken].max(initial=-np.inf)
            stale = np.flatnonzero(~fresh & ~taken & (bounds >= best - tie))
            if not len(stale):
                return
            if len(stale) > size:
                stale = stale[np.argpartition(-bounds[stale], size)[:size]]
            bounds[stale] = np.maximum(columns(stale) - covered[:, None], 0.0).sum(axis=0)
            fresh[stale], size = True, min(2 * size, _BLOCK)

    return greedy(bounds, n_picks, update, tie=tie)


def _kept(columns: Columns, n: int) -> tuple[Columns, np.ndarray]:
    """The columns, kept where KEEP_BYTES allow, and their sums (the gains of a first pick)."""
    sums, half, rows = np.empty(n), n * (n + 1) // 2, np.arange(n)
    kind = np.dtype(np.float64 if 8 * half <= KEEP_BYTES else np.float32)
    kept = np.empty(half if kind.itemsize * half <= KEEP_BYTES else 0, dtype=kind)
    place = rows * n - rows * (rows + 1) // 2  # s_ij, i <= j, is at place[i] + j
    for start in range(0, n, _BLOCK):
        block = rows[start : start + _BLOCK]
        values = columns(block)
        sums[block] = values.sum(axis=0)
        for column, j in enumerate(block if len(kept) else ()):
            kept[place[j] + j : place[j] + n] = values[j:, column]

    def remembered(positions: np.ndarray) -> np.ndarray:
        values = np.empty((len(positions), n))
        for row, j in zip(values, positions, strict=True):
            row[:j] = kept[place[:j] + j]
            row[j:] = kept[place[j] + j : place[j] + n]
        return values.T

    return (remembered if len(kept) else columns), sums


def nearest(columns: Columns, selected: np.ndarray) -> np.ndarray:
    """(n,) place in `selected` of the one most similar to each item; ties to the earliest selected."""
    place, best = np.zeros(1, dtype=np.int64), np.full(1, -np.inf)
    for start in range(0, len(selected), _BLOCK):
        values = columns(selected[start : start + _BLOCK])
        place = np.where(values.max(axis=1) > best, values.argmax(axis=1) + start, place)
        best = np.maximum(best, values.max(axis=1))
    return place
