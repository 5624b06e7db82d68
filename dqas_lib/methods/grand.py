"""GraNd: the images with the largest loss gradient early in training."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, by_score, check_balance, register
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class GraNd:
    """GraNd, the gradient norm. [Paul et al., NeurIPS 2021, Definition 2.1]

    Definition: the largest E |gradient of the loss at x|, over networks trained for a short time. Here the gradient of
    the last layer, |softmax - onehot| sqrt(1 + |h|^2) [as DeepCore], read image by image, so that a last batch of
    another size changes nothing; `networks` trainings of `early` times the recipe [ours: a short schedule of its own].
    Needs: labels, dynamics. Cost: networks * early trainings and as many passes over the images.
    """

    name: ClassVar[str] = "grand"
    needs: ClassVar[tuple[str, ...]] = ("labels", "dynamics")
    balance: str = "proportional"
    networks: int = 3
    early: float = 0.2

    def __post_init__(self) -> None:
        check_early(self.balance, self.networks, self.early)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = early_score(pool, "grand", self.networks, self.early)
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})


def check_early(balance: str, networks: int, early: float) -> None:
    """InputError unless networks >= 1 and 0 < early <= 1."""
    check_balance(balance)
    if networks < 1 or not 0 < early <= 1:
        raise InputError(f"networks must be at least 1 and early lie in (0, 1]; got {networks!r}, {early!r}")


def early_score(pool: Pool, name: str, networks: int, early: float) -> np.ndarray:
    """(N,) mean over several networks, trained for a share `early` of the recipe, of a score of the dynamics."""
    runs = [pool.dynamics(run=run, scale=early, checkpoints=1)[name][-1] for run in range(networks)]
    return np.mean(runs, axis=0, dtype=np.float64)
