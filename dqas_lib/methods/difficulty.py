"""Methods that select what was hard while a network was trained: Forgetting, GraNd, EL2N."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, ScoreMethod, by_score, option, register
from dqas_lib.pool import Pool
from dqas_lib.training.dynamics import forgetting_events


@register
@dataclass(frozen=True)
class Forgetting(ScoreMethod, name="forgetting", needs=("labels", "dynamics")):
    """Learned and forgotten most often in a training [Toneva et al., ICLR 2019, arXiv:1812.05159].

    Definition: the most changes from right to wrong between one checkpoint of the training and the next; an image that
    was never right counts as most forgotten (public code: as least). Most tie: ties are drawn by the seed [ours].
    Needs: labels, dynamics. Cost: one training and `checkpoints` passes over the images.
    """

    checkpoints: int = option(20, whole_number)

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) forgetting events; infinite for an image that was never right."""
        return forgetting_events(pool.dynamics(checkpoints=self.checkpoints)["correct"])

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = self.scores(pool)
        lot, order = np.empty(len(scores)), np.empty(len(scores))
        lot[pool.by_id] = generator(pool.seed, "forgetting, ties").random(len(scores))
        order[np.lexsort((lot, -scores))] = np.arange(len(scores))
        return Choice(by_score(pool, -order, budget, self.balance), trace={"score": scores})


@dataclass(frozen=True)
class _EarlyScore(ScoreMethod, needs=("labels", "dynamics")):
    """The mean of a score of the dynamics, named as the method, over networks trained for a short time."""

    networks: int = option(3, whole_number)
    early: float = option(0.2, partial(number, low=0, high=1, ends="(]"))

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) mean over the networks."""
        runs = [pool.dynamics(run=run, scale=self.early, checkpoints=1)[self.name][-1] for run in range(self.networks)]
        return np.stack(runs).mean(axis=0, dtype=np.float64)


@register
@dataclass(frozen=True)
class GraNd(_EarlyScore, name="grand"):
    """The longest gradient of the loss, early in training [Paul et al., NeurIPS 2021, arXiv:2107.07075].

    Definition: the largest E |gradient of the loss at x|, of the last layer: |softmax - onehot| sqrt(1 + |h|^2) [as
    DeepCore], over `networks` trainings of `early` times the recipe [ours: a short schedule of its own].
    Needs: labels, dynamics. Cost: networks * early trainings and as many passes over the images.
    """


@register
@dataclass(frozen=True)
class EL2N(_EarlyScore, name="el2n"):
    """The largest error of the prediction, early in training [Paul et al., NeurIPS 2021, arXiv:2107.07075].

    Definition: the largest E |softmax - onehot|, over `networks` networks trained for a fraction `early` of the recipe.
    Needs: labels, dynamics (the same as GraNd's). Cost: as GraNd.
    """
