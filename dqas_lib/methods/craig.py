"""CRAIG: medoids in gradient space, each weighted by the images it stands for."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, check_balance, groups, register
from dqas_lib.methods.submodular import Columns, greedy_facility_location, nearest
from dqas_lib.pool import Pool
from dqas_lib.training.gradients import Gradients


@register
@dataclass(frozen=True)
class Craig:
    """CRAIG. [Mirzasoleiman et al., ICML 2020, Algorithm 1]

    Definition: greedy minimization of sum_i min_{j in S} |G_i - G_j| over the gradients, as facility location with
    s_ij = d_max - |G_i - G_j|; image j weighs as many as have it nearest (itself among them), so the weights sum to n.
    G: last-layer gradients, distances from the factorized inner products, image by image (a last batch of another
    size changes nothing). Needs: labels, gradients. Cost: as facility location, with C + d in the place of d.
    """

    name: ClassVar[str] = "craig"
    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Weights: images each one stands for."""
        pool.check(self)
        chosen, weights = [], []
        for members, count in groups(pool, budget, self.balance):
            order, stands_for = medoids(pool.gradients.take(members), count)
            chosen.append(members[order])
            weights.append(stands_for)
        return Choice(np.concatenate(chosen), weights=np.concatenate(weights))


def closeness(gradients: Gradients) -> Columns:
    """Columns of s_ij = d_max - |G_i - G_j|, with d_max twice the largest norm (no two are farther apart)."""
    squares = gradients.norms**2
    reach = 2 * np.sqrt(squares.max(initial=0.0))

    def columns(rows: np.ndarray) -> np.ndarray:
        both = squares[:, None] + squares[rows]
        squared = both - 2 * gradients.inner(gradients.take(rows))
        squared[squared < 1e-12 * both] = 0.0  # what rounding leaves of equal gradients would decide ties
        return np.maximum(reach - np.sqrt(squared), 0.0)

    return columns


def medoids(gradients: Gradients, n_picks: int) -> tuple[np.ndarray, np.ndarray]:
    """(n_picks,) greedy medoids and how many gradients each is nearest to."""
    columns = closeness(gradients)
    order = greedy_facility_location(columns, len(gradients), n_picks)
    place = nearest(columns, order)
    place[order] = np.arange(n_picks)  # a medoid stands for itself, also beside a duplicate
    return order, np.bincount(place, minlength=n_picks).astype(np.float64)
