"""Dataset Quantization: recursive GraphCut bins, and a uniform draw from every bin."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from dqas_lib.bins.bins import Bins, fill_bins
from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.checks import one_of, whole_number
from dqas_lib.methods.base import Choice, draw_from_bins, register
from dqas_lib.methods.greedy import greedy_graph_cut_gradients
from dqas_lib.pool import Pool
from dqas_lib.training.features import extract
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.train import train

SPACES = ("features", "gradients")


@register
@dataclass(frozen=True)
class DQ:
    """Bins from representative to atypical, and a draw from every bin [DQ, ICCV 2023, arXiv:2308.10524].

    Definition: cut each class into n_bins GraphCut bins, each filled greedily from what the earlier bins left, and draw
    the same fraction of every bin uniformly; whole numbers by largest remainder among classes, then among bins.
    space: what is compared, "features" (as DQAS does) or last-layer "gradients" (as DQ's code does, so that
    DQ(space="gradients") is DQ as published; exact, through <G_i, G_j> = (g_i . g_j)(1 + h_i . h_j)).
    Needs: labels, features. Cost: N times a small matrix-vector product, O(N d) memory.
    """

    name: ClassVar[str] = "dq"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features")
    n_bins: int = 10
    space: str = "features"

    def __post_init__(self) -> None:
        whole_number("DQ: n_bins", self.n_bins)
        one_of("DQ: space", self.space, SPACES)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: bin, rank (N,)."""
        pool.check(self, *(("gradients",) if self.space == "gradients" else ()))
        sizes = pool.images.class_counts
        counts = largest_remainder(sizes, budget, caps=sizes)
        bins = pool.bins(self.n_bins) if self.space == "features" else gradient_bins(pool, self.n_bins)
        positions = draw_from_bins(pool, bins, np.arange(len(pool.images)), counts, use="dq")
        return Choice(positions, trace={"bin": bins.bin, "rank": bins.rank})


def gradient_bins(pool: Pool, n_bins: int) -> Bins:
    """Recursive GraphCut bins of every class in the space of the last-layer gradients [DQ]."""

    def compute() -> dict[str, np.ndarray]:
        number, rank = np.zeros((2, len(pool.images)), dtype=np.int64)
        for label in range(pool.images.n_classes):
            members = pool.by_id[pool.images.labels[pool.by_id] == label]
            own = (values[members] for values in (pool.features, pool.logits, pool.images.labels))
            unit = Gradients.of(*own).unit()
            number[members], rank[members] = fill_bins(len(unit), n_bins, partial(_fill, unit))
        return {"bin": number, "rank": rank}

    bins = pool.stage("bins", {"n_bins": n_bins, "space": "gradients"}, compute, (train, extract, gradient_bins))
    return Bins(bins["bin"], bins["rank"], n_bins)


def _fill(unit: Gradients, left: np.ndarray, size: int) -> np.ndarray:
    return greedy_graph_cut_gradients(unit.take(left), size)
