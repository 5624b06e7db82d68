"""Forgetting: the images that are learned and forgotten most often in training."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, check_balance, in_each_group, register
from dqas_lib.pool import Pool
from dqas_lib.training.dynamics import forgetting_events


@register
@dataclass(frozen=True)
class Forgetting:
    """Forgetting events. [Toneva et al., ICLR 2019]

    Definition: the most changes from right to wrong between one moment of the training and the next; an image that was
    never right counts as most forgotten. Counts are small whole numbers, so most images tie: ties are drawn by the seed
    [ours; the order of the file would be a choice of its own]. checkpoints: how often training is looked at.
    Needs: labels, dynamics. Cost: one training and `checkpoints` passes over the images.
    (Public code gives never-learned images 0, the minimum.)
    """

    name: ClassVar[str] = "forgetting"
    needs: ClassVar[tuple[str, ...]] = ("labels", "dynamics")
    balance: str = "proportional"
    checkpoints: int = 20

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = forgetting_events(pool.dynamics(checkpoints=self.checkpoints)["correct"])
        lot = np.empty(len(scores))
        lot[pool.by_id] = generator(pool.seed, "forgetting, ties").random(len(scores))
        positions = in_each_group(
            pool,
            budget,
            self.balance,
            lambda members, count: np.lexsort((lot[members], -scores[members]))[:count],
        )
        return Choice(positions, trace={"score": scores})
