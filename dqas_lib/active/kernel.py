"""Look-ahead by a kernel classifier: what one more labeled image would bring to the images around it [ours]."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.active.round import Estimate, View
from dqas_lib.core.checks import check_fields, number
from dqas_lib.training.features import unit_rows

_BLOCK = 2048  # candidates looked at together


@dataclass(frozen=True)
class Kernel:
    """Exact look-ahead for a kernel classifier in the learners' feature space (`kernel_reductions`).

    An image far from all others changes nothing, and so does one whose surroundings are known already: what is worth
    most lies where validation images are still told wrongly, and many of them.

    Args:
        widths: Of the kernel; that of the least validation error is used, learner by learner.
        best: Fraction of a class's candidates, those of the largest reduction, whose mean is the gain of the class.
    """

    name: ClassVar[str] = "kernel"
    widths: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2)
    best: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        for width in self.widths or (0.0,):
            number(f"Kernel: each width of {self.widths}", width, 0, ends="()")
        number("Kernel: best", self.best, 0, 1, ends="(]")

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        view.need(self.name, validation=True)
        learners, selected, judges = view.ensemble(), view.selected, view.validation
        truth, belief = view.labels[judges], view.belief(learners)
        reduction = np.zeros(len(view.candidates))
        for features in learners.features:
            z = unit_rows(features)
            known, labels = z[selected], view.onehot(selected)
            widths = [(1 - true_probability(known, labels, z[judges], truth, w)[0].mean(), w) for w in self.widths]
            width = min(widths)[1]
            reduction += kernel_reductions(known, labels, z[judges], truth, z[view.candidates], belief, width)
        reduction /= len(learners.features)
        return Estimate(reduction, self._gains(view, reduction) if view.labels_known else None)

    def _gains(self, view: View, reduction: np.ndarray) -> np.ndarray:
        """(C,) mean reduction of the best candidates of each class; 0 for a class without candidates."""
        labels, gains = view.labels[view.candidates], np.zeros(view.n_classes)
        for label in np.unique(labels):
            own = np.sort(reduction[labels == label])[::-1]
            gains[label] = own[: max(1, round(self.best * len(own)))].mean()
        return gains


def true_probability(
    known: np.ndarray, labels: np.ndarray, judges: np.ndarray, truth: np.ndarray, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """(V,) p(v), the kernel classifier's probability of the true class of each judge, and (V,) its weight W(v).

    The arguments are those of `kernel_reductions`.
    """
    kernel = np.exp((known @ judges.T - 1) / width)
    weight = np.maximum(kernel.sum(axis=0), 1e-12)  # of no weight: nothing is known anywhere near
    return ((labels.T @ kernel) / weight)[truth, np.arange(len(truth))], weight


def kernel_reductions(
    known: np.ndarray,
    labels: np.ndarray,
    judges: np.ndarray,
    truth: np.ndarray,
    candidates: np.ndarray,
    belief: np.ndarray,
    width: float,
) -> np.ndarray:
    """(M,) fall of the judges' mean missing probability, 1 - p(v), as each candidate alone becomes known.

    A kernel (Parzen) classifier gives class c the part of the weight W(v) = sum_i k(i, v) that is of class c, with
    k(i, v) = exp((cos(i, v) - 1) / width). A new image x of class y moves the probability p(v) of v's class by
    k(x, v) / (W(v) + k(x, v)) * ([y is v's class] - p(v)); the expectation over y has belief(v's class) in place of
    the bracket.

    Args:
        known, labels: (n, d) unit features of the images known, and (n, C) their one-hot labels.
        judges, truth: (V, d) unit features and (V,) classes of the validation images.
        candidates, belief: (M, d) unit features, and (M, C) label distributions: one-hot where labels are known.
        width: Of the kernel, above 0.
    """
    probability, weight = true_probability(known, labels, judges, truth, width)
    reductions = np.empty(len(candidates))
    for start in range(0, len(candidates), _BLOCK):
        some = slice(start, start + _BLOCK)
        kernel = np.exp((candidates[some] @ judges.T - 1) / width)
        moved = kernel / (weight + kernel)
        reductions[some] = (moved * (belief[some][:, truth] - probability)).mean(axis=1)
    return reductions
