"""Class gains by real short retrainings [ours]."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.active.round import Estimate, View
from dqas_lib.core.seeds import generator


@dataclass(frozen=True)
class Retrain:
    """Real short retrainings in a balanced design: every run informs every class. Knows classes only.

    C runs in which half of the classes have `delta` more and half `delta` less of their images, and two with all more
    and all less; the regression of the validation loss on ln n_c gives every class's effect from all C + 2 runs, with a
    variance of about 1 / (C delta^2) of a run's instead of 2 / delta^2 for one pair of runs per class. The gain of one
    more image is -(d loss / d ln n_c) / n_c.
    """

    name: ClassVar[str] = "retrain"
    classes_only: ClassVar[bool] = True
    delta: float = 0.5

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        view.need(self.name, labels=True, validation=True)
        logs, losses = [], []
        for run, signs in enumerate(balanced_design(view.n_classes, generator(view.seed, "retrain design"))):
            positions = self._resized(view, signs, run)
            now = np.bincount(view.labels[positions], minlength=view.n_classes)
            logs.append(np.log(np.maximum(now, 0.5)) - np.log(np.maximum(view.counts, 0.5)))
            losses.append(view.retrained(positions))
        x, y = np.stack(logs), np.asarray(losses)
        # two rows of the design are nearly dependent for few classes: the least-norm solution of the centered system
        effect = np.linalg.pinv(x - x.mean(axis=0), rcond=1e-6) @ (y - y.mean())
        return Estimate(None, -effect / np.maximum(view.counts, 1))

    def _resized(self, view: View, signs: np.ndarray, run: int) -> np.ndarray:
        """`selected` with every class delta larger or smaller (at least one image where it has any)."""
        kept = []
        for label, have in enumerate(view.counts):
            own, more = (rows[view.labels[rows] == label] for rows in (view.selected, view.candidates))
            rng, step = generator(view.seed, "retrain", run, label), max(1, round(self.delta * have))
            if signs[label] < 0:
                own = rng.permutation(own)[: max(have - step, min(have, 1))]
            kept += [own, rng.permutation(more)[:step] if signs[label] > 0 else more[:0]]
        return np.concatenate(kept)


def balanced_design(n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """(C + 2, C) of -1, 0, 1: C rows that sum to 0 and shift through the classes, then all 1 and all -1.

    The rows are the cyclic shifts of one balanced row (an odd C has one 0 per row), the best conditioned of 50 drawn;
    so every class is up as often as down.
    """
    if n_classes == 1:
        return np.array([[0], [1], [-1]])
    row = np.repeat([1, -1, 0], [n_classes // 2, n_classes // 2, n_classes % 2])
    designs = []
    for _ in range(50 if n_classes <= 200 else 1):
        first = rng.permutation(row)
        designs.append(np.stack([np.roll(first, shift) for shift in range(n_classes)] + [row * 0 + 1, row * 0 - 1]))
    return max(designs, key=lambda design: np.linalg.svd(design, compute_uv=False)[-1] if n_classes <= 200 else 0)
