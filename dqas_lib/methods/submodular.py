"""Methods that maximize a submodular function of the selection: Facility Location, GraphCut."""

from dataclasses import dataclass

import numpy as np

from dqas_lib.bins.graph_cut import greedy_graph_cut
from dqas_lib.core.checks import number
from dqas_lib.methods.base import GroupMethod, Pick, register
from dqas_lib.methods.greedy import greedy_facility_location
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows


@register
@dataclass(frozen=True)
class FacilityLocation(GroupMethod, name="facility-location", needs=("features",)):
    """Facility Location: every image has something similar among the selected [Iyer et al. 2013; as in DeepCore].

    Definition: greedy maximization of sum_i max_{j in S} s_ij, s_ij = 1/2 + 1/2 cos(h_i, h_j). Needs: features.
    Cost: O(n^2 d) once, then a few candidates of O(n d) per pick (lazy evaluation); memory O(n d), and up to
    256 MiB of the kernel.
    """

    def picker(self, pool: Pool) -> Pick:
        """See `GroupMethod.picker`."""
        features = unit_rows(pool.features)

        def pick(members: np.ndarray, count: int) -> np.ndarray:
            z = features[members].astype(np.float64)
            return greedy_facility_location(lambda rows: 0.5 + 0.5 * (z @ z[rows].T), len(z), count)

        return pick


@register
@dataclass(frozen=True)
class GraphCut(GroupMethod, name="graph-cut", needs=("features",)):
    """GraphCut: representative of the pool, and unlike what is selected already [Iyer et al. 2013; as in DeepCore].

    Definition: greedy maximization of lambda sum_{i in V, j in S} s_ij - sum_{i, j in S} s_ij, s_ij = 1/2 + 1/2 cos, V
    the class (DQ's first bin is this with as many picks as the bin holds). Needs: features. Cost: one small matvec per
    pick, memory O(n d).
    """

    lambda_val: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        number("lambda_val", self.lambda_val, 0, ends="()")

    def picker(self, pool: Pool) -> Pick:
        """See `GroupMethod.picker`."""
        z = unit_rows(pool.features)
        return lambda members, count: greedy_graph_cut(z[members], count, lambda_val=self.lambda_val)
