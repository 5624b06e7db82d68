"""Dataset Quantization: recursive GraphCut bins, and a uniform draw from every bin."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.bins import Bins
from dqas_lib.budget import largest_remainder
from dqas_lib.methods.base import Choice, Workbench
from dqas_lib.seeds import generator


@dataclass(frozen=True)
class DQ:
    """Dataset Quantization's selection. [DQ, ICCV 2023, Sections 3.2 and 3.3]

    Definition: cut each class into n_bins GraphCut bins, each filled greedily from what the earlier bins left, and draw
    the same share of every bin uniformly. Needs: labels, features. Cost: the bins, O(N d) memory and about
    N times a small matrix-vector product. Whole numbers by largest remainder, first among classes, then among the bins
    of a class, so that the counts sum to B exactly; the bins that get a remainder are drawn by the seed.
    """

    name: ClassVar[str] = "dq"
    n_bins: int = 10

    def choose(self, bench: Workbench, budget: int) -> Choice:
        """See `Method.choose`."""
        sizes = bench.images.class_counts
        counts = largest_remainder(sizes, budget, caps=sizes)
        bins = bench.bins(self.n_bins)
        positions = draw_from_bins(bench, bins, np.arange(len(bench.images)), counts, use="dq")
        return Choice(positions, trace={"bin": bins.bin, "rank": bins.rank})


def draw_from_bins(bench: Workbench, bins: Bins, candidates: np.ndarray, counts: np.ndarray, *, use: str) -> np.ndarray:
    """counts[c] candidates of each class c, in equal shares from its bins, uniformly within a bin.

    Every bin draws from a stream of its own (the public DQ code seeds every bin alike, so that the same ranks are
    drawn from each).
    """
    chosen = []
    for label, count in enumerate(counts):
        members = candidates[bench.images.labels[candidates] == label]
        if not count:
            continue
        sizes = np.bincount(bins.bin[members], minlength=bins.n_bins)
        first = generator(bench.seed, use, label, "remainders").permutation(bins.n_bins)
        quotas = np.empty_like(sizes)
        quotas[first] = largest_remainder(sizes[first], count, caps=sizes[first])
        for number in np.flatnonzero(quotas):
            inside = members[bins.bin[members] == number]
            inside = inside[np.argsort(bench.images.ids[inside], kind="stable")]
            chosen.append(generator(bench.seed, use, label, int(number)).permutation(inside)[: quotas[number]])
    return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)
