"""Least Confidence: the images whose predicted class is least probable."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, by_score, check_balance, register
from dqas_lib.pool import Pool
from dqas_lib.training.probabilities import softmax


@register
@dataclass(frozen=True)
class LeastConfidence:
    """Least Confidence. [Lewis and Gale 1994; Coleman et al., ICLR 2020, for selection]

    Definition: the largest 1 - max_k p_k. Needs: logits. Cost: O(N C).
    """

    name: ClassVar[str] = "least-confidence"
    needs: ClassVar[tuple[str, ...]] = ("logits",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = least_confidence(pool.logits)
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})


def least_confidence(logits: np.ndarray) -> np.ndarray:
    """(N,) 1 - max_k p_k of (N, C) logits."""
    return 1 - softmax(logits.astype(np.float64)).max(axis=1)
