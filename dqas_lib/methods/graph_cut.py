"""GraphCut: typical of the pool, and unlike what is chosen already."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.bins.graph_cut import greedy_graph_cut
from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows


@register
@dataclass(frozen=True)
class GraphCut:
    """GraphCut. [Iyer et al. 2013; as in DeepCore]

    Definition: greedy maximization of lambda sum_{i in V, j in S} s_ij - sum_{i, j in S} s_ij, s_ij = 1/2 + 1/2 cos, V
    the class (DQ's first bin is this with as many picks as the bin holds). Needs: features. Cost: one small matvec a
    pick, memory O(n d).
    """

    name: ClassVar[str] = "graph-cut"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    balance: str = "proportional"
    lambda_val: float = 1.0

    def __post_init__(self) -> None:
        check_balance(self.balance)
        if not self.lambda_val > 0:
            raise InputError(f"lambda_val must be above 0; got {self.lambda_val!r}")

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        z = unit_rows(pool.features)

        def pick(members: np.ndarray, count: int) -> np.ndarray:
            return greedy_graph_cut(z[members], count, lambda_val=self.lambda_val)

        return Choice(in_each_group(pool, budget, self.balance, pick))
