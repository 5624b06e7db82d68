"""CCS: coverage-centric selection, the same number from every stratum of difficulty."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, GroupMethod, groups, option, register
from dqas_lib.pool import Pool
from dqas_lib.training.dynamics import area_under_margin


@register
@dataclass(frozen=True)
class CCS(GroupMethod, name="ccs", needs=("labels", "dynamics")):
    """Equally many of every stratum of difficulty, the hardest left out [Zheng et al., ICLR 2023, arXiv:2210.15809].

    Definition: leave out the fraction `hard` of the hardest images (mislabeled ones are among them; never so many that
    too few are left), cut the range of the difficulty, minus the area under the margin, into `strata` intervals of
    equal width, and draw equal numbers from them, uniformly. hard: 0.3 at 10 % of CIFAR-10 [CCS], less at larger
    ratios. Over all classes at once as in the paper; balance "proportional" or "equal" does it class by class.
    Needs: labels, dynamics. Cost: one training and `checkpoints` passes over the images.
    """

    balance: str = "free"
    hard: float = option(0.3, partial(number, low=0, high=1, ends="[)"))
    strata: int = option(50, whole_number)
    checkpoints: int = option(20, whole_number)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,), the difficulty."""
        pool.check(self)
        difficulty = -area_under_margin(pool.dynamics(checkpoints=self.checkpoints)["margin"])
        selected = []
        for place, (members, count) in enumerate(groups(pool, budget, self.balance)):
            cut = min(int(self.hard * len(members)), len(members) - count)
            kept = members[np.sort(np.argsort(difficulty[members], kind="stable")[: len(members) - cut])]
            rng = generator(pool.seed, "ccs", place)
            selected.append(kept[stratified(difficulty[kept], count, self.strata, rng)])
        return Choice(np.concatenate(selected), trace={"score": difficulty})


def stratified(scores: np.ndarray, n_picks: int, strata: int, rng: np.random.Generator) -> np.ndarray:
    """`n_picks` positions, equal numbers from each of `strata` equal intervals of the scores.

    The smallest stratum is served first, each with an equal part of what is left: what it lacks goes to the rest.
    """
    low, width = scores.min(), (scores.max() - scores.min()) / strata
    stratum = np.minimum(((scores - low) / width).astype(np.int64), strata - 1) if width > 0 else np.zeros(len(scores))
    numbers, sizes = np.unique(stratum, return_counts=True)
    selected, left = [], n_picks
    for done, place in enumerate(np.lexsort((numbers, sizes))):
        count = min(int(sizes[place]), left // (len(numbers) - done))
        selected.append(rng.permutation(np.flatnonzero(stratum == numbers[place]))[:count])
        left -= count
    return np.concatenate(selected)
