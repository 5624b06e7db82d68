"""Margin: the images on which the two likeliest classes are closest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, by_score, check_balance, register
from dqas_lib.pool import Pool
from dqas_lib.training.probabilities import margin, softmax


@register
@dataclass(frozen=True)
class Margin:
    """Margin. [Scheffer et al. 2001; Coleman et al., ICLR 2020, for selection]

    Definition: the smallest p_(1) - p_(2), the difference of the two largest probabilities. Needs: logits.
    Cost: O(N C).
    """

    name: ClassVar[str] = "margin"
    needs: ClassVar[tuple[str, ...]] = ("logits",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,), minus the margin."""
        pool.check(self)
        scores = -probability_margin(pool.logits)
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})


def probability_margin(logits: np.ndarray) -> np.ndarray:
    """(N,) difference of the two largest probabilities of (N, C) logits; 1 with one class."""
    return margin(softmax(logits.astype(np.float64)))
