"""Entropy: the images whose predicted distribution is most spread out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, by_score, check_balance, register
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class Entropy:
    """Entropy. [Shannon 1948; Coleman et al., ICLR 2020, for selection]

    Definition: the largest -sum_k p_k ln p_k. Needs: logits. Cost: O(N C).
    (Public code picks the smallest when classes are not balanced.)
    """

    name: ClassVar[str] = "entropy"
    needs: ClassVar[tuple[str, ...]] = ("logits",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = entropy(pool.logits)
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})


def entropy(logits: np.ndarray) -> np.ndarray:
    """(N,) entropies in nats of the softmax of (N, C) logits."""
    from scipy.special import log_softmax  # slow to import

    logs = log_softmax(logits.astype(np.float64), axis=1)
    return -np.einsum("ij,ij->i", np.exp(logs), logs)
