"""Random: every image of a class is as likely as any other."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.methods.base import Choice, Workbench
from dqas_lib.methods.common import check_balance, quotas
from dqas_lib.seeds import generator


@dataclass(frozen=True)
class Random:
    """Uniform random choice within each class. [paper, "Random"]

    Definition: n_c images drawn without replacement from class c, n_c in proportion to the class's size (equal on
    balanced data), sum n_c = B exactly; with balance "free", B images drawn from all. Needs: labels (free: none).
    Cost: O(N).
    """

    name: ClassVar[str] = "random"
    needs: ClassVar[tuple[str, ...]] = ()
    balance: str = "proportional"

    def __post_init__(self) -> None:
        check_balance(self.balance)

    def choose(self, bench: Workbench, budget: int) -> Choice:
        """See `Method.choose`."""
        if self.balance == "free":
            return Choice(generator(bench.seed, "random, free").permutation(bench.by_id)[:budget])
        counts = quotas(bench, budget, self.balance)
        return Choice(draw_within_classes(bench, np.arange(len(bench.images)), counts, use="random"))


def draw_within_classes(bench: Workbench, candidates: np.ndarray, counts: np.ndarray, *, use: str) -> np.ndarray:
    """counts[c] candidates of each class c, uniformly; depends on the images' ids, not on their order."""
    images = bench.images
    chosen = []
    for label, count in enumerate(counts):
        members = candidates[images.labels[candidates] == label]
        members = members[np.argsort(images.ids[members], kind="stable")]
        chosen.append(generator(bench.seed, use, label).permutation(members)[:count])
    return np.concatenate(chosen)
