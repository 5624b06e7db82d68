"""Herding: the running mean of the chosen features stays as close as it can to the class mean."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.methods.submodular import TIE, first_best
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows


@register
@dataclass(frozen=True)
class Herding:
    """Herding. [Welling, ICML 2009; as in iCaRL, Rebuffi et al., CVPR 2017, Algorithm 4]

    Definition: with mu the mean feature of the class, pick k + 1 is
    argmin_j | mu - (z_j + sum of the k chosen z) / (k + 1) |, without replacement. Unit features (iCaRL).
    Needs: features. Cost: O(n d) a pick, memory O(n d).
    (A sign error, seen in public code, picks the farthest instead.)
    """

    name: ClassVar[str] = "herding"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        z = unit_rows(pool.features)
        return Choice(in_each_group(pool, budget, self.balance, lambda rows, count: greedy_herding(z[rows], count)))


def greedy_herding(features: np.ndarray, n_picks: int) -> np.ndarray:
    """Herding's order of `n_picks` rows of (n, d) features, ties to the lowest position.

    |(k + 1) mu - s - z_j|^2 = const - 2 z_j . ((k + 1) mu - s) + |z_j|^2 with s the sum of what is chosen.
    """
    z = np.ascontiguousarray(features, dtype=np.float64)
    mean, squares = z.mean(axis=0), np.einsum("ij,ij->i", z, z)
    tie = TIE * max(1.0, squares.max(initial=0.0)) * len(z)
    total = np.zeros_like(mean)
    taken = np.zeros(len(z))  # minus infinity once chosen
    picked = np.empty(n_picks, dtype=np.int64)
    for k in range(n_picks):
        pick = first_best(2 * (z @ ((k + 1) * mean - total)) - squares + taken, tie)
        picked[k] = pick
        taken[pick] = -np.inf
        total += z[pick]
    return picked
