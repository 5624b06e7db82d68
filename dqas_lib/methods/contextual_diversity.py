"""Contextual Diversity: k-center in the space of predicted class probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.methods.k_center import farthest_first, first_drawn
from dqas_lib.pool import Pool
from dqas_lib.training.probabilities import log_softmax


@register
@dataclass(frozen=True)
class ContextualDiversity:
    """Contextual Diversity. [Agarwal et al., ECCV 2020, Section 3; one image, one prediction, as in DeepCore]

    Definition: farthest-first under d(i, j) = KL(p_i | p_j) / 2 + KL(p_j | p_i) / 2 of the predicted probabilities,
    from a first image drawn by the seed. Needs: logits. Cost: O(n C) a pick.
    """

    name: ClassVar[str] = "contextual-diversity"
    needs: ClassVar[tuple[str, ...]] = ("logits",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)

        def pick(members: np.ndarray, count: int) -> np.ndarray:
            first = first_drawn(pool, members, self.name)
            return farthest_first(symmetric_divergences(pool.logits[members]), len(members), count, first)

        return Choice(in_each_group(pool, budget, self.balance, pick))


def symmetric_divergences(logits: np.ndarray) -> Callable[[int], np.ndarray]:
    """Function of a row: (n,) halves of KL(p_j | p_row) + KL(p_row | p_j) in nats, of (n, C) logits.

    The sum of both divergences is (p_j - p_row) . (log p_j - log p_row).
    """
    logs = log_softmax(logits.astype(np.float64))
    p = np.exp(logs)
    own = np.einsum("ij,ij->i", p, logs)
    return lambda row: np.maximum(0.5 * (own + own[row] - p @ logs[row] - logs @ p[row]), 0.0)
