"""Dataset Quantization: recursive GraphCut bins, and a uniform draw from every bin."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.bins.bins import Bins
from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, register
from dqas_lib.methods.submodular import greedy_graph_cut_gradients
from dqas_lib.pool import Pool
from dqas_lib.training.features import extract
from dqas_lib.training.train import train

SPACES = ("features", "gradients")


@register
@dataclass(frozen=True)
class DQ:
    """Dataset Quantization's selection. [DQ, ICCV 2023, Sections 3.2 and 3.3]

    Definition: cut each class into n_bins GraphCut bins, each filled greedily from what the earlier bins left, and draw
    the same share of every bin uniformly. Needs: labels, features. Cost: the bins, O(N d) memory and about
    N times a small matrix-vector product. Whole numbers by largest remainder, first among classes, then among the bins
    of a class, so that the counts sum to B exactly; the bins that get a remainder are drawn by the seed.

    space: what is compared, "features" (as DQAS does) or last-layer "gradients" (as DQ's code does, so that
    DQ(space="gradients") is DQ as published; exact, through <G_i, G_j> = (g_i . g_j)(1 + h_i . h_j), and O(n (C + d))
    a pick).
    """

    name: ClassVar[str] = "dq"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features")
    n_bins: int = 10
    space: str = "features"

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"DQ: space is one of {', '.join(SPACES)}; got {self.space!r}")

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self, *(("gradients",) if self.space == "gradients" else ()))
        sizes = pool.images.class_counts
        counts = largest_remainder(sizes, budget, caps=sizes)
        bins = pool.bins(self.n_bins) if self.space == "features" else gradient_bins(pool, self.n_bins)
        positions = draw_from_bins(pool, bins, np.arange(len(pool.images)), counts, use="dq")
        return Choice(positions, trace={"bin": bins.bin, "rank": bins.rank})


def gradient_bins(pool: Pool, n_bins: int) -> Bins:
    """Recursive GraphCut bins of every class in the space of the last-layer gradients."""

    def compute() -> dict[str, np.ndarray]:
        unit, labels = pool.gradients.unit(), pool.images.labels
        number, rank = np.zeros(len(labels), dtype=np.int64), np.zeros(len(labels), dtype=np.int64)
        for label in range(pool.images.n_classes):
            left = pool.by_id[labels[pool.by_id] == label]
            size = len(left)
            for bin_ in range(min(n_bins, size)):
                order = greedy_graph_cut_gradients(unit.take(left), size // n_bins + (bin_ < size % n_bins))
                number[left[order]], rank[left[order]] = bin_, np.arange(len(order))
                left = np.delete(left, order)
        return {"bin": number, "rank": rank}

    found = pool.stage("bins", {"n_bins": n_bins, "space": "gradients"}, compute, (train, extract, gradient_bins))
    return Bins(found["bin"], found["rank"], n_bins)


def draw_from_bins(pool: Pool, bins: Bins, candidates: np.ndarray, counts: np.ndarray, *, use: str) -> np.ndarray:
    """counts[c] candidates of each class c, in equal shares from its bins, uniformly within a bin.

    Every bin draws from a stream of its own (the public DQ code seeds every bin alike, so that the same ranks are
    drawn from each).
    """
    chosen = []
    for label, count in enumerate(counts):
        members = candidates[pool.images.labels[candidates] == label]
        if not count:
            continue
        sizes = np.bincount(bins.bin[members], minlength=bins.n_bins)
        first = generator(pool.seed, use, label, "remainders").permutation(bins.n_bins)
        quotas = np.empty_like(sizes)
        quotas[first] = largest_remainder(sizes[first], count, caps=sizes[first])
        for number in np.flatnonzero(quotas):
            inside = members[bins.bin[members] == number]
            inside = inside[np.argsort(pool.images.ids[inside], kind="stable")]
            chosen.append(generator(pool.seed, use, label, int(number)).permutation(inside)[: quotas[number]])
    return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
