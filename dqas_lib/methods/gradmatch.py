"""GradMatch: weighted images whose gradients add up to that of the whole class."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, check_balance, groups, register
from dqas_lib.methods.submodular import TIE, first_best
from dqas_lib.pool import Pool
from dqas_lib.training.gradients import Gradients


@register
@dataclass(frozen=True)
class GradMatch:
    """GradMatch. [Killamsetty et al., ICML 2021, Algorithm 2: orthogonal matching pursuit]

    Definition: orthogonal matching pursuit of T = sum_i G_i: pick argmax_j <T - sum w G, G_j>, then set all weights to
    argmin_{w >= 0} |T - sum w G|^2 + lambda |w|^2, and so on. lambda = ridge * mean |G|^2 [ours]. G: last-layer
    gradients, per class, in factors, image by image. Images picked when nothing is left to match weigh 0.
    Needs: labels, gradients. Cost: O(n C d) and a k x k system a pick.
    """

    name: ClassVar[str] = "gradmatch"
    needs: ClassVar[tuple[str, ...]] = ("labels", "gradients")
    balance: str = "proportional"
    ridge: float = 0.5

    def __post_init__(self) -> None:
        check_balance(self.balance)
        if not self.ridge > 0:
            raise InputError(f"ridge must be above 0; got {self.ridge!r}")

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Weights: w; none when all gradients are 0."""
        pool.check(self)
        chosen, weights = [], []
        for members, count in groups(pool, budget, self.balance):
            order, w = match_gradients(pool.gradients.take(members), count, self.ridge)
            chosen.append(members[order])
            weights.append(w)
        weights = np.concatenate(weights)
        return Choice(np.concatenate(chosen), weights=weights if weights.sum() > 0 else None)


def match_gradients(gradients: Gradients, n_picks: int, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """(n_picks,) positions in the order picked and their weights >= 0; ties to the lowest position."""
    target = gradients.total()
    squares = gradients.norms**2
    penalty = ridge * squares.mean() if squares.any() else 1.0
    wanted = gradients.against(target)  # <T, G_j>
    tie = TIE * max(1.0, np.abs(wanted).max(initial=0.0))
    picked = np.empty(n_picks, dtype=np.int64)
    taken = np.zeros(len(gradients))
    gram = np.empty((n_picks, n_picks))
    weights = np.zeros(0)
    for k in range(n_picks):
        chosen = gradients.take(picked[:k])
        residual = target - chosen.total(weights)
        pick = first_best(gradients.against(residual) + taken, tie)
        picked[k] = pick
        taken[pick] = -np.inf
        row = gradients.take(picked[k : k + 1]).inner(gradients.take(picked[: k + 1]))[0]
        gram[k, : k + 1] = gram[: k + 1, k] = row
        gram[k, k] += penalty
        start = np.append(weights, 0.0)
        weights = non_negative_solution(gram[: k + 1, : k + 1], wanted[picked[: k + 1]], start)
    return picked, weights


def non_negative_solution(matrix: np.ndarray, right: np.ndarray, start: np.ndarray) -> np.ndarray:
    """argmin_{w >= 0} w' M w / 2 - w' r of a positive definite M, from a feasible start. [Lawson and Hanson 1974]"""
    weights = start.copy()
    free = weights > 0
    tolerance = 1e-10 * max(1.0, np.abs(right).max())
    for _ in range(3 * len(right) + 10):
        slope = np.where(free, -np.inf, right - matrix @ weights)
        if slope.max() > tolerance:
            free[slope.argmax()] = True
        elif np.array_equal(free, weights > 0) and np.abs((right - matrix @ weights)[free]).max(initial=0) <= tolerance:
            break
        while free.any():
            inside = np.flatnonzero(free)
            wish = np.linalg.solve(matrix[np.ix_(inside, inside)], right[inside])
            if wish.min() > 0:
                weights = np.zeros_like(weights)
                weights[inside] = wish
                break
            now = weights[inside]
            blocking = wish <= 0
            step = (now[blocking] / (now[blocking] - wish[blocking])).min()
            weights[inside] = np.maximum(now + step * (wish - now), 0.0)
            free[inside[weights[inside] <= 1e-14]] = False
            weights[~free] = 0.0
    return weights
