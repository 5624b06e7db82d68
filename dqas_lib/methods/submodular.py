"""Greedy maximization of facility location and of GraphCut over gradients, without an n x n matrix in memory.

Facility location is f(S) = sum_i max_{j in S} s_ij with s >= 0 and f(empty) = 0. Its gains can only shrink, so a gain
worked out earlier is an upper bound: a candidate is looked at again only when its bound could win (Minoux's accelerated
greedy). The picks are those of plain greedy; gains closer than a rounding error count as equal and go to the lowest
position.
"""

from collections.abc import Callable

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.training.gradients import Gradients

TIE = 1e-12


# half of a symmetric kernel is kept where it takes no more than 256 MiB: in float64 for n <= 8,191, in float32 for
# n <= 11,584 (near-ties may then fall otherwise); beyond that columns are worked out whenever they are looked at
KEEP_BYTES = 2**28


_BLOCK = 128


Columns = Callable[[np.ndarray], np.ndarray]


def first_best(scores: np.ndarray, tie: float) -> int:
    """The lowest position whose score is within `tie` of the largest."""
    return int(np.argmax(scores >= scores.max() - tie))


def greedy_facility_location(columns: Columns, n: int, n_picks: int) -> np.ndarray:
    """Greedy order of `n_picks` of n candidates, (n_picks,) int64.

    columns: positions (b,) -> (n, b) symmetric similarities >= 0 of every item to those candidates.
    Raises InputError when n_picks does not lie between 0 and n.
    """
    if not 0 <= n_picks <= n:
        raise InputError(f"n_picks must lie between 0 and the {n} rows; got {n_picks!r}")
    columns, bounds = _prepared(columns, n)
    scale = TIE * max(1.0, bounds.max(initial=0.0))
    covered = np.zeros(n)
    picked = np.empty(n_picks, dtype=np.int64)
    taken = np.zeros(n, dtype=bool)
    for number in range(n_picks):
        fresh = np.zeros(n, dtype=bool) if number else np.ones(n, dtype=bool)
        size = 8
        while True:
            best = bounds[fresh & ~taken].max(initial=-np.inf)
            stale = np.flatnonzero(~fresh & ~taken & (bounds >= best - scale))
            if not len(stale):
                break
            if len(stale) > size:
                stale = stale[np.argpartition(-bounds[stale], size)[:size]]
            bounds[stale] = np.maximum(columns(stale) - covered[:, None], 0.0).sum(axis=0)
            fresh[stale] = True
            size = min(2 * size, 128)
        pick = first_best(np.where(taken, -np.inf, bounds), scale)
        picked[number] = pick
        taken[pick] = True
        covered = np.maximum(covered, columns(np.array([pick]))[:, 0])
    return picked


def _prepared(columns: Columns, n: int) -> tuple[Columns, np.ndarray]:
    """The columns, kept where KEEP_BYTES allow, and their sums (the gains of a first pick)."""
    sums = np.empty(n)
    half = n * (n + 1) // 2
    kind = np.dtype(np.float64 if 8 * half <= KEEP_BYTES else np.float32)
    kept = np.empty(half, dtype=kind) if kind.itemsize * half <= KEEP_BYTES else None
    rows = np.arange(n)
    place = rows * n - rows * (rows + 1) // 2  # s_ij, i <= j, is at place[i] + j
    for start in range(0, n, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n))
        values = columns(block)
        sums[block] = values.sum(axis=0)
        if kept is not None:
            for column, j in enumerate(block):
                kept[place[j] + j : place[j] + n] = values[j:, column]
    if kept is None:
        return columns, sums

    def remembered(positions: np.ndarray) -> np.ndarray:
        found = np.empty((len(positions), n))
        for row, j in zip(found, positions, strict=True):
            row[:j] = kept[place[:j] + j]
            row[j:] = kept[place[j] + j : place[j] + n]
        return found.T

    return remembered, sums


def nearest(columns: Columns, chosen: np.ndarray) -> np.ndarray:
    """For every item, which of the chosen (a place in `chosen`) is most similar to it; ties to the earliest chosen."""
    best, place = None, None
    for start in range(0, len(chosen), _BLOCK):
        values = columns(chosen[start : start + _BLOCK])
        here = values.argmax(axis=1)
        top = values[np.arange(len(values)), here]
        if best is None:
            best, place = top, here
        else:
            better = top > best
            best, place = np.where(better, top, best), np.where(better, here + start, place)
    return place


def greedy_graph_cut_gradients(gradients: Gradients, n_picks: int, *, lambda_val: float = 1.0) -> np.ndarray:
    """Greedy GraphCut order of `n_picks` unit gradients, as `bins.greedy_graph_cut` on the vectors written out.

    A pick p lowers the score of j by <G_j, G_p> = (g_j . g_p)(h_j . h_p): O(n (C + d)) a pick instead of O(n C d).
    """
    if not 0 <= n_picks <= len(gradients):
        raise InputError(f"n_picks must lie between 0 and the {len(gradients)} rows; got {n_picks!r}")
    scores = 0.5 * lambda_val * gradients.against(gradients.total())
    tie = TIE * max(1, len(gradients))
    picked = np.empty(n_picks, dtype=np.int64)
    for k in range(n_picks):
        pick = first_best(scores, tie)
        picked[k] = pick
        scores -= (gradients.g @ gradients.g[pick]) * (gradients.h @ gradients.h[pick])
        scores[pick] = -np.inf
    return picked
