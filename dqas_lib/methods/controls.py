"""Controls: what is left of DQAS when one of its parts is taken away."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from dqas_lib.budget.initialization import Proportional
from dqas_lib.core.checks import check_fields, whole_number
from dqas_lib.methods.base import Choice, register
from dqas_lib.methods.dqas import DQAS
from dqas_lib.pool import Pool


@register
@dataclass(frozen=True)
class BinsRandom:
    """A control: DQAS's bins, and no active rounds [ours].

    Definition: the whole budget is drawn from n_bins bins per class, as DQAS draws its initial set. Needs: labels,
    features, network. Cost: the bins.
    """

    name: ClassVar[str] = "bins-random"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "network")
    n_bins: int = 10

    def __post_init__(self) -> None:
        whole_number("BinsRandom: n_bins", self.n_bins)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        return DQAS(bins=self.n_bins, initialization=Proportional(), rounds=None).select(pool, budget)


@register
@dataclass(frozen=True)
class ShuffledCounts:
    """A control: DQAS with its class counts dealt to other classes [ours].

    Definition: what is found about a class is used for another. If class counts matter, this is worse than DQAS and, on
    balanced data, than equal counts. Needs and cost: as DQAS.
    """

    name: ClassVar[str] = "dqas-shuffled"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "network")
    dqas: DQAS = field(default_factory=DQAS)

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def patchify(self) -> str:
        """When patches are dropped: as of `dqas`."""
        return self.dqas.patchify

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        return replace(self.dqas, shuffle_counts=True).select(pool, budget)
