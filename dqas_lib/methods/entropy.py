"""Entropy: the images whose predicted distribution is most spread out."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, by_score, check_balance, register
from dqas_lib.pool import Pool
from dqas_lib.training.probabilities import entropy


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
        scores = entropy(pool.logits.astype(np.float64))
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})
