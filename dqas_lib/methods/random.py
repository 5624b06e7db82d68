"""Random: every image of a class is as likely as any other."""

from dataclasses import dataclass

import numpy as np

from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, GroupMethod, draw_within_classes, quotas, register
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class Random(GroupMethod, name="random"):
    """Every image of a class is as likely as any other [DQ, as baseline].

    Definition: n_c images drawn without replacement from class c, n_c in proportion to the class's size, sum n_c = B;
    with balance "free", B images drawn from all. Needs: labels (free: none). Cost: O(N).
    """

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        if self.balance == "free":
            return Choice(generator(pool.seed, "random, free").permutation(pool.by_id)[:budget])
        counts = quotas(pool, budget, self.balance)
        return Choice(draw_within_classes(pool, np.arange(len(pool.images)), counts, use="random"))
