"""Facility Location: every image has something similar among the chosen."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.methods.submodular import greedy_facility_location
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows


@register
@dataclass(frozen=True)
class FacilityLocation:
    """Facility Location. [Iyer et al. 2013; as in DeepCore]

    Definition: greedy maximization of sum_i max_{j in S} s_ij, s_ij = 1/2 + 1/2 cos(h_i, h_j). Needs: features.
    Cost: O(n^2 d) once, then a few candidates of O(n d) a pick (lazy evaluation); memory O(n d), and up to
    256 MiB of the kernel.
    """

    name: ClassVar[str] = "facility-location"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        features = unit_rows(pool.features)

        def pick(members: np.ndarray, count: int) -> np.ndarray:
            z = features[members].astype(np.float64)
            return greedy_facility_location(lambda rows: 0.5 + 0.5 * (z @ z[rows].T), len(z), count)

        return Choice(in_each_group(pool, budget, self.balance, pick))
