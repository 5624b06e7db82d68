"""Estimators of the expected error reduction, and their registry [abstract: the idea; formulas ours].

Class counts and samples are separate decisions made from such estimates. In compression the labels are known, so Roy
and McCallum's expectation over labels [ICML 2001] collapses to the label at hand; `View.labels_known = False` keeps the
true expectation, for a pool without labels. Whatever is registered here can stand in `DQAS(samples=...)` and
`GainCounts(...)`, as can any other object with a `name` that is called with a view.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.active.kernel import Kernel
from dqas_lib.active.ridge import Ridge
from dqas_lib.active.round import Estimate, Estimator, View
from dqas_lib.core.checks import number
from dqas_lib.core.registry import Registry
from dqas_lib.core.seeds import generator
from dqas_lib.training.probabilities import log_softmax, margin, true_class_margin


@dataclass(frozen=True)
class Margin:
    """Plain uncertainty, the reference: 1 - margin of the ensemble. Needs no labels and no validation images."""

    name: ClassVar[str] = "margin"

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        reduction = 1 - margin(view.ensemble().probabilities)[view.candidates]
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class TrueMargin:
    """1 - |margin of the true class|: images near the boundary, on either side. Needs labels."""

    name: ClassVar[str] = "true-margin"

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        view.need(self.name, labels=True)
        reduction = 1 - np.abs(true_class_margin(view.ensemble().probabilities, view.labels))[view.candidates]
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class Gradient:
    """First order, last layer: <mean validation gradient, the candidate's gradient>, as in GLISTER and GradMatch.

    With g = softmax - onehot and features h the product is g_val . g_x + h_x^T M g_x, where M = mean over the
    validation images of h g^T: the long gradients are never made. Under the expectation over labels onehot becomes the
    ensemble's probabilities: a single learner then expects no change, only disagreement within the ensemble counts.
    """

    name: ClassVar[str] = "gradient"

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        view.need(self.name, validation=True)
        learners, validation = view.ensemble(), view.validation
        belief, truth = view.belief(learners), view.onehot(validation)
        reduction = np.zeros(len(view.candidates))
        for features, logits in zip(learners.features, learners.logits, strict=True):
            g_val = np.exp(log_softmax(logits[validation].astype(np.float64))) - truth
            g_x = np.exp(log_softmax(logits[view.candidates].astype(np.float64))) - belief
            matrix = features[validation].T @ g_val / len(validation)
            reduction += g_x @ g_val.mean(axis=0) + np.einsum("md,md->m", features[view.candidates] @ matrix, g_x)
        reduction /= len(learners.features)
        return Estimate(reduction, view.class_gain(reduction))


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

    def __post_init__(self) -> None:
        number("Retrain: delta", self.delta, 0, 1, ends="(]")

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


@dataclass(frozen=True)
class RandomSamples:
    """Random numbers in place of an estimate: samples uniform within their class. Knows no classes."""

    name: ClassVar[str] = "random"

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        return Estimate(generator(view.pool_seed, "dqas samples", view.number).random(len(view.candidates)), None)


__all__ = [
    "ESTIMATORS",
    "Gradient",
    "Kernel",
    "Margin",
    "RandomSamples",
    "Retrain",
    "Ridge",
    "TrueMargin",
    "balanced_design",
    "register",
]

ESTIMATORS: Registry[Estimator] = Registry("estimator")
register = ESTIMATORS.register
for _estimator in (Margin(), TrueMargin(), Ridge(), Kernel(), Gradient(), Retrain()):
    register(_estimator)
