"""Methods that look at distances in feature space or between predictions: Herding, k-Center, Contextual Diversity."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import GroupMethod, register
from dqas_lib.methods.greedy import TIE, greedy
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows
from dqas_lib.training.probabilities import log_softmax

Distances = Callable[[int], np.ndarray]  # row -> (n,) distances of all rows to it, or an increasing function of them


@register
@dataclass(frozen=True)
class Herding(GroupMethod, name="herding", needs=("features",)):
    """The mean of the picks stays at the class's mean [Welling, ICML 2009; iCaRL, arXiv:1611.07725, Algorithm 4].

    Definition: with mu the class's mean of the unit features z, pick k + 1 is the j not yet selected with the least
    | mu - (z_j + sum of the k selected z) / (k + 1) |. (A sign error, seen in public code, picks the farthest.)
    Needs: features. Cost: O(n d) per pick.
    """

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """See `GroupMethod.pick`."""
        return greedy_herding(unit_rows(pool.features[rows]), count)


def greedy_herding(features: np.ndarray, n_picks: int) -> np.ndarray:
    """Herding's order of `n_picks` rows of (n, d) features, ties to the lowest position."""
    z = np.ascontiguousarray(features, dtype=np.float64)
    mean, squares = z.mean(axis=0), np.einsum("ij,ij->i", z, z)
    total, k = np.zeros_like(mean), 1
    gain = 2 * (z @ mean) - squares  # |k mu - s - z_j|^2 = const - 2 z_j . (k mu - s) + |z_j|^2, s: sum of the selected

    def update(pick: int) -> None:
        nonlocal total, k
        total, k = total + z[pick], k + 1
        np.subtract(2 * (z @ (k * mean - total)), squares, out=gain)

    return greedy(gain, n_picks, update, tie=TIE * max(1.0, squares.max(initial=0.0)) * len(z))


@register
@dataclass(frozen=True)
class KCenter(GroupMethod, name="k-center", needs=("features",)):
    """The image farthest from all picks, again and again [Sener and Savarese, ICLR 2018, arXiv:1708.00489].

    Definition: argmax_j min_{i in S} |h_j - h_i|, from a first image drawn by the seed; within twice the best radius
    [Gonzalez 1985]. Needs: features. Cost: O(n d) per pick.
    """

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """See `GroupMethod.pick`."""
        return farthest_first(squared_distances(pool.features[rows]), count, _first(pool, rows, self))


@register
@dataclass(frozen=True)
class ContextualDiversity(GroupMethod, name="contextual-diversity", needs=("logits",)):
    """Predictions as unlike each other as possible [Agarwal et al., ECCV 2020, arXiv:2008.05723; as in DeepCore].

    Definition: farthest-first under d(i, j) = KL(p_i | p_j) / 2 + KL(p_j | p_i) / 2 of the predicted probabilities,
    from a first image drawn by the seed. Needs: logits. Cost: O(n C) per pick.
    """

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """See `GroupMethod.pick`."""
        return farthest_first(symmetric_divergences(pool.logits[rows]), count, _first(pool, rows, self))


def _first(pool: Pool, members: np.ndarray, method: GroupMethod) -> int:
    label = int(pool.images.labels[members[0]])
    return int(generator(pool.seed, method.name, "first", label).integers(len(members)))


def squared_distances(features: np.ndarray) -> Distances:
    """Function of a row: the (n,) squared distances of all rows of (n, d) features to it."""
    z = np.ascontiguousarray(features, dtype=np.float64)
    z = z - z.mean(axis=0)  # distances stay; small numbers lose less in the difference of squares
    squares = np.einsum("ij,ij->i", z, z)
    return lambda row: np.maximum(squares + squares[row] - 2 * (z @ z[row]), 0.0)


def symmetric_divergences(logits: np.ndarray) -> Distances:
    """Function of a row: (n,) (p_j - p_row) . (log p_j - log p_row) / 2 in nats, both divergences, of (n, C) logits."""
    logs = log_softmax(logits.astype(np.float64))
    p = np.exp(logs)
    own = np.einsum("ij,ij->i", p, logs)
    return lambda row: np.maximum(0.5 * (own + own[row] - p @ logs[row] - logs @ p[row]), 0.0)


def farthest_first(distances: Distances, n_picks: int, first: int) -> np.ndarray:
    """Farthest-first order of `n_picks` >= 1 rows, beginning with `first`, ties to the lowest position."""
    nearest = distances(first)
    tie, nearest[first] = TIE * nearest.max(), -np.inf
    others = greedy(nearest, n_picks - 1, lambda p: np.minimum(nearest, distances(p), out=nearest), tie=tie)
    return np.concatenate([[first], others])
