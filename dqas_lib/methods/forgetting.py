"""Forgetting: the images that are learned and forgotten most often in training."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.dynamics import forgetting_events
from dqas_lib.methods.base import Choice, Workbench
from dqas_lib.methods.common import check_balance, in_each_group
from dqas_lib.seeds import generator


@dataclass(frozen=True)
class Forgetting:
    """Forgetting events. [Toneva et al., ICLR 2019]

    Definition: the most changes from right to wrong between one moment of the training and the next; an image that was
    never right counts as most forgotten. Counts are small whole numbers, so most images tie: ties are drawn by the seed
    [ours; the order of the file would be a choice of its own]. moments: how often training is looked at.
    Needs: labels, dynamics. Cost: one training and `moments` passes over the images.
    (Public code gives never-learned images 0, the minimum.)
    """

    name: ClassVar[str] = "forgetting"
    needs: ClassVar[tuple[str, ...]] = ("labels", "dynamics")
    balance: str = "proportional"
    moments: int = 20

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def choose(self, bench: Workbench, budget: int) -> Choice:
        """See `Method.choose`. Trace: score (N,)."""
        bench.check(self)
        scores = forgetting_events(bench.dynamics(moments=self.moments)["correct"])
        lot = np.empty(len(scores))
        lot[bench.by_id] = generator(bench.seed, "forgetting, ties").random(len(scores))
        positions = in_each_group(
            bench,
            budget,
            self.balance,
            lambda members, count: np.lexsort((lot[members], -scores[members]))[:count],
        )
        return Choice(positions, trace={"score": scores})
