"""k-Center Greedy: each pick is the image farthest from everything chosen so far."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.methods.submodular import TIE, first_best
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class KCenter:
    """k-Center Greedy. [Sener and Savarese, ICLR 2018, Algorithm 1; Gonzalez 1985: within twice the best radius]

    Definition: argmax_j min_{i in S} |h_j - h_i|, from a first image drawn by the seed. Needs: features (as they are).
    Cost: O(n d) a pick, memory O(n d).
    """

    name: ClassVar[str] = "k-center"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)

        def pick(members: np.ndarray, count: int) -> np.ndarray:
            first = first_drawn(pool, members, self.name)
            return farthest_first(squared_distances(pool.features[members]), len(members), count, first)

        return Choice(in_each_group(pool, budget, self.balance, pick))


def first_drawn(pool: Pool, members: np.ndarray, use: str) -> int:
    """A place within `members` drawn by the seed."""
    return int(generator(pool.seed, use, "first", int(pool.images.labels[members[0]])).integers(len(members)))


def squared_distances(features: np.ndarray) -> Callable[[int], np.ndarray]:
    """Function of a row: the (n,) squared distances of all rows to it."""
    z = np.ascontiguousarray(features, dtype=np.float64)
    z = z - z.mean(axis=0)  # distances stay; small numbers lose less in the difference of squares
    squares = np.einsum("ij,ij->i", z, z)
    return lambda row: np.maximum(squares + squares[row] - 2 * (z @ z[row]), 0.0)


def farthest_first(distances: Callable[[int], np.ndarray], n: int, n_picks: int, first: int) -> np.ndarray:
    """Farthest-first order of `n_picks` of n rows, beginning with `first`, ties to the lowest position.

    distances: row -> (n,) distances of all rows to it (any increasing function of the distance will do).
    """
    picked = np.empty(n_picks, dtype=np.int64)
    nearest, scale = np.full(n, np.inf), 0.0
    taken = np.zeros(n)
    pick = first
    for k in range(n_picks):
        if k:
            pick = first_best(nearest + taken, TIE * scale)
        picked[k] = pick
        taken[pick] = -np.inf
        np.minimum(nearest, distances(pick), out=nearest)
        if not k:
            scale = nearest.max()
    return picked
