"""TODO."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.training.probabilities import class_means, ensemble_probabilities


@dataclass(frozen=True, eq=False)
class Learners:
    """What L trained learners say of all N images.

    features: (L, N, d) float32 penultimate activations; logits: (L, N, C) float32; fit: L arrays of positions on whose
    features a new head may be fitted: the images selected so far, but for those the learner itself was trained on when
    it is cross-fitted. Raises InputError for NaN or infinite features.
    """

    features: np.ndarray
    logits: np.ndarray
    fit: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        bad = ~np.isfinite(self.features).all(axis=(1, 2)) | ~np.isfinite(self.logits).all(axis=(1, 2))
        if bad.any():
            raise InputError(
                f"features of {bad.sum()} of {len(bad)} learners are NaN or infinite: their training diverged; "
                "lower the recipe's learning rate"
            )

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) mean probabilities of the ensemble."""
        return ensemble_probabilities(self.logits)


@dataclass(frozen=True, eq=False)
class View:
    """What an estimator sees in one round.

    labels: (N,) of all images; selected, candidates, held: positions (selected so far; may be added; validation);
    labels_known: False hides the candidates' labels and takes the expectation over them; seed: of the round's draws;
    ensemble, cross_fitted: give `Learners`, trained when they are first asked for, on all of `selected` and on all but
    one fold of it; retrained: validation loss (nats an image) of a learner trained on the given positions;
    samples_wanted: False where only the classes are asked for, so that no candidate need be looked at.
    """

    labels: np.ndarray
    n_classes: int
    selected: np.ndarray
    candidates: np.ndarray
    held: np.ndarray
    seed: int
    ensemble: Callable[[], Learners]
    cross_fitted: Callable[[], Learners]
    retrained: Callable[[np.ndarray, int], float]
    labels_known: bool = True
    samples_wanted: bool = True

    @property
    def counts(self) -> np.ndarray:
        """(C,) images selected so far."""
        return np.bincount(self.labels[self.selected], minlength=self.n_classes)

    def onehot(self, positions: np.ndarray) -> np.ndarray:
        """(n, C) float64."""
        return np.eye(self.n_classes)[self.labels[positions]]

    def belief(self, learners: Learners) -> np.ndarray:
        """(M, C) label distribution of the candidates: their labels, or the ensemble's probabilities."""
        return self.onehot(self.candidates) if self.labels_known else learners.probabilities[self.candidates]

    def need_labels(self, name: str) -> None:
        if not self.labels_known:
            raise InputError(
                f"estimator {name!r} needs the candidates' labels, and this pool counts as unlabeled: "
                "use 'margin', 'ridge' or 'gradient', or labels='known'"
            )

    def need_held(self, name: str) -> None:
        if not len(self.held):
            raise InputError(
                f"estimator {name!r} needs validation images, and every class has one image at most: "
                "use 'margin', or give more images"
            )

    def class_gain(self, reduction: np.ndarray) -> np.ndarray | None:
        """(C,) mean reduction over the candidates of each class; None where labels are hidden. 0 without candidates."""
        if not self.labels_known:
            return None
        return class_means(reduction, self.labels[self.candidates], self.n_classes, otherwise=0.0)


@dataclass(frozen=True, eq=False)
class Estimate:
    """samples: (M,) expected error reduction of each candidate, larger is better, in the estimator's own unit (None:
    it knows classes only); classes: (C,) of adding an image of each class (None: labels are hidden)."""

    samples: np.ndarray | None
    classes: np.ndarray | None


class Estimator(Protocol):
    """One way to estimate the error reduction: a frozen dataclass with a name."""

    name: str

    def __call__(self, view: View) -> Estimate: ...
