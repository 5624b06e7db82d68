"""Methods that maximize a submodular function of the selection: Facility Location, GraphCut."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from dqas_lib.bins.graph_cut import greedy_graph_cut
from dqas_lib.core.checks import number
from dqas_lib.methods.base import GroupMethod, option, register
from dqas_lib.methods.greedy import greedy_facility_location
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows


@register
@dataclass(frozen=True)
class FacilityLocation(GroupMethod, name="facility-location", needs=("features",)):
    """Facility Location: every image has something similar among the selected [Iyer et al. 2013; as in DeepCore].

    Definition: greedy maximization of sum_i max_{j in S} s_ij, s_ij = 1/2 + 1/2 cos(h_i, h_j). Needs: features.
    Cost: O(n^2 d) once, then a few candidates of O(n d) per pick; memory O(n d), and up to 256 MiB of the kernel.
    """

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """See `GroupMethod.pick`."""
        z = unit_rows(pool.features[rows]).astype(np.float64)
        return greedy_facility_location(lambda some: 0.5 + 0.5 * (z @ z[some].T), len(z), count)


@register
@dataclass(frozen=True)
class GraphCut(GroupMethod, name="graph-cut", needs=("features",)):
    """GraphCut: representative of the pool, and unlike what is selected already [Iyer et al. 2013; as in DeepCore].

    Definition: greedy maximization of lambda sum_{i in V, j in S} s_ij - sum_{i, j in S} s_ij, s_ij = 1/2 + 1/2 cos, V
    the class (DQ's first bin is this with as many picks as the bin holds). Needs: features. Cost: O(n d) per pick.
    """

    lambda_val: float = option(1.0, partial(number, low=0, ends="()"))

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """See `GroupMethod.pick`."""
        return greedy_graph_cut(unit_rows(pool.features[rows]), count, lambda_val=self.lambda_val)
