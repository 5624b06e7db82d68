"""Controls: what is left of DQAS when one of its parts is taken away."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from dqas_lib.methods.base import Choice, register
from dqas_lib.methods.dqas import DQAS
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class BinsRandom:
    """Bins + random: DQAS's bins and held-out images, and no active sampling. [paper, ablation]

    Definition: the whole budget is drawn from the bins as DQAS draws its first share. What DQAS gains over this
    is the worth of its rounds. Needs: labels, features, network. Cost: the bins.
    """

    name: ClassVar[str] = "bins-random"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "network")
    n_bins: int = 10

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        return DQAS(n_bins=self.n_bins, active=False).select(pool, budget)


@register
@dataclass(frozen=True)
class ShuffledCounts:
    """DQAS with its class counts dealt to other classes. [ours]

    Definition: the same rounds and samples, but what is found about a class is used for another. If class counts are
    worth something, this is worse than DQAS and, on balanced data, than equal counts. Needs and cost: as DQAS.

    dqas: whose counts are shuffled.
    """

    name: ClassVar[str] = "dqas-shuffled"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "network")
    dqas: DQAS = field(default_factory=DQAS)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        return replace(self.dqas, shuffle_counts=True).select(pool, budget)
