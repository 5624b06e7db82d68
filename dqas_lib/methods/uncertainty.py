"""Methods that select what a network trained on everything is least sure of: Least Confidence, Entropy, Margin."""

from dataclasses import dataclass

import numpy as np

from dqas_lib.methods.base import ScoreMethod, register
from dqas_lib.pool import Pool
from dqas_lib.training.probabilities import log_softmax, margin, softmax


@register
@dataclass(frozen=True)
class LeastConfidence(ScoreMethod, name="least-confidence", needs=("logits",)):
    """Whose likeliest class is least likely [Lewis and Gale 1994; Coleman et al., ICLR 2020, arXiv:1906.11829].

    Definition: the largest 1 - max_k p_k. Needs: logits. Cost: O(N C).
    """

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) 1 - max_k p_k."""
        return 1 - softmax(pool.logits.astype(np.float64)).max(axis=1)


@register
@dataclass(frozen=True)
class Entropy(ScoreMethod, name="entropy", needs=("logits",)):
    """Whose predicted classes are most evenly spread [Coleman et al., ICLR 2020, arXiv:1906.11829].

    Definition: the largest -sum_k p_k ln p_k (public code, unbalanced: the smallest). Needs: logits. Cost: O(N C).
    """

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) entropies in nats."""
        logs = log_softmax(pool.logits.astype(np.float64))
        return -np.einsum("ij,ij->i", np.exp(logs), logs)


@register
@dataclass(frozen=True)
class Margin(ScoreMethod, name="margin", needs=("logits",)):
    """Whose two likeliest classes are closest [Scheffer et al. 2001; Coleman et al., ICLR 2020, arXiv:1906.11829].

    Definition: the least difference of the two largest p_k (1 with one class). Needs: logits. Cost: O(N C).
    """

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) minus the margins."""
        return -margin(softmax(pool.logits.astype(np.float64)))
