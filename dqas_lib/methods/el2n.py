"""EL2N: the images whose predicted probabilities are farthest from the label early in training."""

from dataclasses import dataclass
from typing import ClassVar

from dqas_lib.methods.base import Choice, by_score, register
from dqas_lib.methods.grand import check_early, early_score
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class EL2N:
    """EL2N, the error L2 norm. [Paul et al., NeurIPS 2021, Definition 2.2]

    Definition: the largest E |softmax - onehot|, over `networks` networks trained for a share `early` of the recipe.
    Needs: labels, dynamics (the same as GraNd's). Cost: as GraNd.
    """

    name: ClassVar[str] = "el2n"
    needs: ClassVar[tuple[str, ...]] = ("labels", "dynamics")
    balance: str = "proportional"
    networks: int = 3
    early: float = 0.2

    def __post_init__(self) -> None:
        check_early(self.balance, self.networks, self.early)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = early_score(pool, "el2n", self.networks, self.early)
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})
