"""Estimators of the expected error reduction, and their registry [abstract: the idea; formulas ours].

Class counts and samples are separate decisions made from such estimates. In compression the labels are known, so Roy
and McCallum's expectation over labels [ICML 2001] collapses to the label at hand; `View.labels_known = False` keeps the
true expectation, for a pool without labels. Whatever is registered here can stand in `DQAS(samples=...)` and
`GainCounts(...)`, as can any other object with a `name` that is called with a view.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.active.retrain import Retrain
from dqas_lib.active.ridge import Ridge
from dqas_lib.active.round import Estimate, Estimator, View
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
class RandomSamples:
    """Random numbers in place of an estimate: samples uniform within their class. Knows no classes."""

    name: ClassVar[str] = "random"

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        return Estimate(generator(view.pool_seed, "dqas samples", view.number).random(len(view.candidates)), None)


__all__ = ["ESTIMATORS", "Gradient", "Margin", "RandomSamples", "Retrain", "Ridge", "TrueMargin", "register"]

ESTIMATORS: Registry[Estimator] = Registry("estimator")
register = ESTIMATORS.register
for _estimator in (Margin(), TrueMargin(), Ridge(), Gradient(), Retrain()):
    register(_estimator)
