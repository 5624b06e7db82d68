"""Stage 5, active rounds: which classes, and which samples, lower the validation error most.

[paper, Section 3.3: sample where the expected error reduction is largest; every formula here is ours]
A round trains learners on what is selected so far, shows them the candidates and the held-out images, and asks an
estimator for two things: how much each candidate would lower the validation error, and how much an average image of
each class would. Class counts and samples are separate decisions made from such estimates.

In compression the labels are known, so Roy and McCallum's expectation over labels [ICML 2001] collapses to the label at
hand; `View.labels_known = False` keeps the true expectation, for a pool without labels.
"""

from dataclasses import dataclass

import numpy as np

from dqas_lib.active.retrain import Retrain
from dqas_lib.active.ridge import Ridge
from dqas_lib.active.round import Estimate, Estimator, View
from dqas_lib.core.errors import InputError
from dqas_lib.training.probabilities import log_softmax, margin, true_class_margin


@dataclass(frozen=True)
class Margin:
    """Plain uncertainty, the reference: 1 - margin of the ensemble. Needs no labels and no validation images."""

    name: str = "margin"

    def __call__(self, view: View) -> Estimate:
        reduction = 1 - margin(view.ensemble().probabilities)[view.candidates]
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class TrueMargin:
    """1 - |margin of the true class|: images near the boundary, on either side. Needs labels."""

    name: str = "true-margin"

    def __call__(self, view: View) -> Estimate:
        view.need_labels(self.name)
        reduction = 1 - np.abs(true_class_margin(view.ensemble().probabilities, view.labels))[view.candidates]
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class Gradient:
    """First order, last layer: <mean validation gradient, the candidate's gradient>, as in GLISTER and GradMatch.

    A gradient step on x lowers the validation loss by lr <g_val, g_x>. With g = softmax - onehot and features h the
    product is g_val . g_x + h_x^T M g_x, where M = mean over the validation images of h g^T: the long gradients are
    never made. Under the expectation over labels onehot becomes the ensemble's probabilities: a single learner then
    expects no change to first order, only disagreement within the ensemble counts.
    """

    name: str = "gradient"

    def __call__(self, view: View) -> Estimate:
        view.need_held(self.name)
        learners = view.ensemble()
        belief, truth = view.belief(learners), view.onehot(view.held)
        reduction = np.zeros(len(view.candidates))
        for features, logits in zip(learners.features, learners.logits, strict=True):
            g_val = np.exp(log_softmax(logits[view.held].astype(np.float64))) - truth
            g_x = np.exp(log_softmax(logits[view.candidates].astype(np.float64))) - belief
            matrix = features[view.held].T @ g_val / len(view.held)
            reduction += g_x @ g_val.mean(axis=0) + np.einsum("md,md->m", features[view.candidates] @ matrix, g_x)
        reduction /= len(learners.features)
        return Estimate(reduction, view.class_gain(reduction))


ESTIMATORS: dict[str, Estimator] = {e.name: e for e in (Margin(), TrueMargin(), Ridge(), Gradient(), Retrain())}


def get_estimator(name: str) -> Estimator:
    """An estimator by name; InputError lists the known ones."""
    if name not in ESTIMATORS:
        raise InputError(f"unknown estimator {name!r}: the known ones are {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]
