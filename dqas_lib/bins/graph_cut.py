"""GraphCut, greedily: the most representative first, then what is unlike what is picked already [DQ].

Kernel s_ij = 1/2 + 1/2 cos(z_i, z_j). Gain of adding j to S out of the pool V:
    lambda * sum_{i in V} s_ij - 2 * sum_{i in S} s_ij.

With unit features the gain is z_j . w plus what is equal for all j, with w = (lambda/2) sum_V z - sum_S z: nothing is
quadratic in n. Every choice that float32 leaves open, by a rigorous bound of its rounding, is made in float64.
"""

import math
from typing import Any

import numpy as np

from dqas_lib.core.errors import InputError

TIE = 1e-12  # gains that differ by less than this, times the size of the pool, count as equal: rounding is far smaller
_BLOCK = 192  # rows, at least, whose scores are kept exact between two looks at the whole pool
_GRID = np.linspace(0.0, 1.0, 5)  # where the bound on all other rows is worked out, as fractions of its reach
_ROUNDING = 2.0**-24  # of one float32 operation


def bin_size(n: Any, n_bins: int, number: int) -> Any:
    """Images in bin `number` of a class of n (a whole number, or a tensor of them): equal parts, larger ones first."""
    return n // n_bins + (number < n % n_bins)


def greedy_graph_cut(features: np.ndarray, n_picks: int, *, lambda_val: float = 1.0) -> np.ndarray:
    """Greedy order of `n_picks` rows under GraphCut with the pool V = all rows.

    features: (n, d) unit rows (or zero rows). Gives (n_picks,) int64 positions in the order picked, ties to the lowest.
    Memory O(n d); a pick costs one small matrix-vector product, and the whole pool is looked at every few dozen picks.

    How looks are saved: with a pick p, the score z_j . w falls by z_j . z_p. Between two looks the best few hundred
    rows are kept exact, in float64. Any other row is bounded: split the sum of the picks since the look into m u along
    the pool's mean direction u and a rest E across it. Row j has fallen by m (z_j . u) + z_j . E, where |z_j . E| is at
    most |z_j - (z_j . u) u| |E|. While the best exact score lies above the largest bound, the pick is the one that
    looking at all rows would give. The look itself is float32, half the memory to read: what float32 can be wrong by
    (d products summed in any order: d * 2^-24 * |z| |w|) is added to the bound.
    """
    if not 0 <= n_picks <= len(features):
        raise InputError(f"n_picks must lie between 0 and the {len(features)} rows; got {n_picks!r}")
    pool = _Pool(features)
    w = 0.5 * lambda_val * pool.total
    picked: list[int] = []
    while len(picked) < n_picks:
        picks = pool.certain_picks(w, n_picks - len(picked))
        w -= pool.z[picks].astype(np.float64).sum(axis=0)
        picked += picks
    return np.array(picked, dtype=np.int64)


class _Pool:
    """The rows of one greedy run, and which are taken."""

    def __init__(self, features: np.ndarray) -> None:
        self.z = np.asarray(features)
        self.look = np.ascontiguousarray(features, dtype=np.float32)
        self.total = self.z.sum(axis=0, dtype=np.float64)
        length = np.linalg.norm(self.total)
        self.direction = self.total / length if length > 0 else self.total
        squares = np.einsum("ij,ij->i", self.look, self.look)
        longest = self.longest = float(np.sqrt(squares.max(initial=0.0))) * (1 + self.z.shape[1] * _ROUNDING)
        # float32 error of a product with a unit vector: d roundings, and 8 for its operands and the bound's own terms
        self.slack = (self.z.shape[1] + 8) * _ROUNDING * longest * 1.01
        self.along = self.look @ self.direction.astype(np.float32)
        # an upper bound, of the length and hence of the rounding of its parts too
        self.across = np.sqrt(np.maximum(squares - self.along**2, 0.0) + 4 * self.slack * longest)
        self.taken = np.zeros(len(self.z), dtype=bool)
        self.tie = TIE * max(1, len(self.z))
        self.block = max(_BLOCK, int(2 * len(self.z) ** 0.5))

    def certain_picks(self, w: np.ndarray, limit: int) -> list[int]:
        """Picks that follow from one look, at most `limit` and at least one."""
        scores = self.look @ w.astype(np.float32)
        scores[self.taken] = -np.inf
        slack = self.slack * float(np.linalg.norm(w))
        n_open = len(scores) - int(self.taken.sum())
        size = min(self.block, n_open)
        block = np.sort(np.argpartition(scores, len(scores) - size)[len(scores) - size :])
        rows = self.z[block].astype(np.float64)
        exact = rows @ w
        least, bound = exact.max() - self.tie, None
        if size < n_open:
            scores[block] = -np.inf
            if scores.max() + slack >= least:
                near = np.flatnonzero(scores >= least - slack)
                parts = (self.z[near[start : start + 8192]] for start in range(0, len(near), 8192))
                exact = np.concatenate([exact, *(part.astype(np.float64) @ w for part in parts)])
                picked = np.concatenate([block, near])[exact >= exact.max() - self.tie].min(keepdims=True)
                self.taken[picked] = True
                return picked.tolist()
            others = np.isfinite(scores)
            bound = _Bound(scores[others], self.along[others], self.across[others], slack, self.slack)
        picked = block[self._within(rows, self.look[block], exact, w, limit, bound)]
        self.taken[picked] = True
        return picked.tolist()

    def _within(
        self, rows: np.ndarray, look: np.ndarray, scores: np.ndarray, w: np.ndarray, limit: int, bound: "_Bound | None"
    ) -> list[int]:
        """Picks within a block while they are certain to be those of the whole pool.

        rows: (b, d) float64; look: the same in float32; scores: (b,) exact. Falls come from a float32 kernel matrix;
        where what that can be wrong by (`doubt`) leaves a choice, scores are computed anew in float64.
        """
        kernel = (look @ look.T).astype(np.float64)
        along = (rows @ self.direction).tolist()
        start, falling = scores.tolist(), scores.copy()
        picks: list[int] = []
        moved = length2 = doubt = 0.0
        chosen = int((scores >= scores.max() - self.tie).argmax())
        best = float(scores[chosen])
        while True:
            picks.append(chosen)
            if len(picks) == limit or len(picks) == len(start):
                return picks
            # |P + p|^2 of the sum P of the picks, from above; z . P is how far a score has fallen since the look
            length2 += 2 * (start[chosen] - best + doubt) + self.longest**2
            moved += along[chosen]
            doubt += self.slack * self.longest
            falling -= kernel[chosen]
            falling[chosen] = -np.inf
            chosen = int(falling.argmax())
            best = float(falling[chosen])
            near = falling >= best - self.tie - 2 * doubt
            if np.count_nonzero(near) > 1:
                near = np.flatnonzero(near)
                left = rows[near] @ (w - rows[picks].sum(axis=0))
                best = float(left.max())
                first = int((left >= best - self.tie).argmax())
                chosen, best = int(near[first]), float(left[first])
            if bound is not None:
                rest = math.sqrt(max(length2 - moved * moved, 0.0) + 1e-9 * length2)
                if bound(moved, rest) >= best - 2 * doubt - 2 * self.tie:
                    return picks


class _Bound:
    """Upper bound of max_j (score_j - m along_j + e across_j) over the rows outside the block, for growing e.

    For a fixed e the maximum is convex in m, so the chord between two values of m, on a grid that grows when left,
    lies above it. slack: what the scores can be wrong by; drift: what each further float32 operation can, times m.
    """

    def __init__(self, scores: np.ndarray, along: np.ndarray, across: np.ndarray, slack: float, drift: float) -> None:
        self.scores, self.along, self.across = scores, along, across
        self.slack, self.drift = slack, drift
        self.reach_m, self.reach_e = 8.0, 1.0
        self.values: list[float] = []

    def __call__(self, m: float, e: float) -> float:
        if m < 0:
            return np.inf
        if not self.values or m > self.reach_m or e > self.reach_e:
            while m > self.reach_m:
                self.reach_m *= 2
            while e > self.reach_e:
                self.reach_e *= 1.5
            lifted = self.scores + np.float32(self.reach_e) * self.across
            self.values = [float((lifted - np.float32(m) * self.along).max()) for m in _GRID * self.reach_m]
        place = m / self.reach_m * (len(_GRID) - 1)
        left = min(int(place), len(_GRID) - 2)
        part = place - left
        chord = (1 - part) * self.values[left] + part * self.values[left + 1]
        return chord + self.slack + self.drift * (self.reach_m + self.reach_e)
