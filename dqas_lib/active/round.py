"""An active round: what learners trained on the images selected so far say, and what an estimator makes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import derive, generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.probabilities import class_means, ensemble_probabilities, log_softmax

# positions to train on, and a seed -> (N, d) features and (N, C) logits of all the images
Trainer = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Rounds:
    """Active rounds: each makes what is selected `growth` times larger, the last one stops at the budget [ours].

    So the rounds up to one budget are also the first rounds up to a larger one: selections are nested where budgets are
    powers of `growth` apart, as 5, 10 and 20 % are, and all of them cost little more than the largest alone.

    Args:
        growth: Above 1.
        learners, learner_scale: Learners of a round, and the factor on the length of their recipe.
    """

    growth: float = 2.0
    learners: int = 1
    learner_scale: float = 0.25

    def __post_init__(self) -> None:
        number("Rounds: growth", self.growth, 1, ends="()")
        whole_number("Rounds: learners", self.learners)
        number("Rounds: learner_scale", self.learner_scale, 0, ends="()")

    def targets(self, initial: float, n_images: int, budget: int) -> list[int]:
        """Images selected after the initial set, a fraction `initial` of n_images, and after each round."""
        sizes: list[int] = []
        while not sizes or sizes[-1] < budget:
            sizes.append(min(max(1, round(initial * self.growth ** len(sizes) * n_images)), budget))
        return sizes


@dataclass(frozen=True, eq=False)
class Learners:
    """What L trained learners say of all N images; InputError for features or logits that are NaN or infinite.

    Args:
        features, logits: (L, N, d) penultimate activations and (L, N, C), float32.
        fit: L arrays of positions on whose features a new head may be fitted: what is selected so far, but for what the
            learner itself was trained on when it is cross-fitted.
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

    Args:
        images: All N images, with their labels.
        selected, candidates, validation: Positions: selected so far; (M,) that may be added; that judge.
        pool_seed, number: Seed of the selection, and number of the round.
        n_learners, train: L, and what trains them.
        labels_known: False hides the candidates' labels; estimators take the expectation over them.
        samples_wanted: False where only the classes are asked for, so that no candidate need be looked at.
        made: Learners trained already; a view's copies share it.
    """

    images: ImageSet
    selected: np.ndarray
    candidates: np.ndarray
    validation: np.ndarray
    pool_seed: int
    number: int
    n_learners: int
    train: Trainer
    labels_known: bool = True
    samples_wanted: bool = True
    made: dict[str, Learners] = field(default_factory=dict, repr=False)

    @property
    def labels(self) -> np.ndarray:
        """(N,) labels of all the images."""
        return self.images.labels

    @property
    def n_classes(self) -> int:
        """C."""
        return self.images.n_classes

    @property
    def seed(self) -> int:
        """Of the round's random draws."""
        return derive(self.pool_seed, "dqas", self.number)

    @property
    def counts(self) -> np.ndarray:
        """(C,) images selected so far."""
        return np.bincount(self.labels[self.selected], minlength=self.n_classes)

    def ensemble(self) -> Learners:
        """Learners trained on all that is selected."""
        return self._learners("learner", self.n_learners, np.full(len(self.selected), -1))

    def cross_fitted(self) -> Learners:
        """Learners trained on all but one fold each, at least two of them."""
        n = max(2, self.n_learners)
        return self._learners("cross-fitted", n, _folds(self.images.take(self.selected), n, self.pool_seed))

    def any_learners(self) -> Learners:
        """Learners that the round has trained already, of whichever kind; else `ensemble`."""
        return next(iter(self.made.values())) if self.made else self.ensemble()

    def _learners(self, use: str, n: int, fold: np.ndarray) -> Learners:
        """N learners, each trained on all that is selected but its own fold, where it has one."""
        if use not in self.made:
            outputs, fit = [], []
            for learner in range(n):
                own = fold == learner
                if own.all():  # too few images to leave any out
                    own = ~own
                seed = derive(self.pool_seed, "dqas", self.number, use, learner)
                outputs.append(self.train(self.selected[~own], seed))
                fit.append(self.selected[own] if own.any() else self.selected)
            features, logits = (np.stack(arrays) for arrays in zip(*outputs, strict=True))
            self.made[use] = Learners(features, logits, tuple(fit))
        return self.made[use]

    def retrained(self, positions: np.ndarray) -> float:
        """Validation loss (nats per image) of a learner trained on these positions."""
        _, logits = self.train(positions, derive(self.pool_seed, "dqas", self.number, "retrain"))
        return float(-log_softmax(logits)[self.validation, self.labels[self.validation]].mean())

    def onehot(self, positions: np.ndarray) -> np.ndarray:
        """(n, C) float64."""
        return np.eye(self.n_classes)[self.labels[positions]]

    def belief(self, learners: Learners) -> np.ndarray:
        """(M, C) label distribution of the candidates: their labels, or the ensemble's probabilities."""
        return self.onehot(self.candidates) if self.labels_known else learners.probabilities[self.candidates]

    def need(self, name: str, *, labels: bool = False, validation: bool = False) -> None:
        """InputError that names the estimator and what it needs and this round does not have."""
        if labels and not self.labels_known:
            raise InputError(
                f"estimator {name!r} needs the candidates' labels, and this pool counts as unlabeled: use 'margin', "
                "'ridge' or 'gradient', or labels='known'"
            )
        if validation and not len(self.validation):
            raise InputError(
                f"estimator {name!r} needs validation images, and every class has one image at most: use 'margin', or "
                "give more images"
            )

    def class_gain(self, reduction: np.ndarray) -> np.ndarray | None:
        """(C,) mean reduction over the candidates of each class; None where labels are hidden. 0 without candidates."""
        if not self.labels_known:
            return None
        return class_means(reduction, self.labels[self.candidates], self.n_classes, otherwise=0.0)


def _folds(images: ImageSet, n_folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each image, dealt class by class, so that folds differ by at most one image per class."""
    fold = np.empty(len(images), dtype=np.int64)
    for label in range(images.n_classes):
        members = np.flatnonzero(images.labels == label)
        members = members[np.argsort(images.ids[members], kind="stable")]
        rng = generator(seed, "dqas folds", label)
        fold[rng.permutation(members)] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    return fold


class Estimate(NamedTuple):
    """Expected error reduction, in the estimator's own unit; larger is better.

    samples: (M,) by each candidate (None: it knows classes only); classes: (C,) by one more image of each class (None:
    labels are hidden).
    """

    samples: np.ndarray | None
    classes: np.ndarray | None


@runtime_checkable
class Estimator(Protocol):
    """One way to estimate the error reduction of candidates and classes: an object with a name, called with a view."""

    @property
    def name(self) -> str:
        """Its name in the registry and in messages."""

    def __call__(self, view: View) -> Estimate:
        """What it expects in this round."""
