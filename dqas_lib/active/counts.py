"""Class counts of a round: how what is selected by its end is divided among the classes [ours]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dqas_lib.active.round import Estimate, Estimator, View
from dqas_lib.core.checks import number
from dqas_lib.core.errors import InputError
from dqas_lib.training.probabilities import class_error, shrunk

Estimates = Callable[[Estimator], Estimate]
Division = tuple[np.ndarray, np.ndarray]


@runtime_checkable
class Counts(Protocol):
    """A rule for the class counts after a round: a frozen dataclass."""

    def divide(self, view: View, best: np.ndarray, estimate: Estimates) -> Division:
        """(C,) weights >= 0 of the counts, and (C,) what they were decided on.

        best: positions of as many candidates as the round selects, those of the largest utility; estimate: gives what
        an estimator says in this round.
        """


@dataclass(frozen=True)
class EqualCounts:
    """Equal counts, as far as the class sizes allow."""

    def divide(self, view: View, best: np.ndarray, estimate: Estimates) -> Division:
        """See `Counts`."""
        return np.ones(view.n_classes), np.ones(view.n_classes)


@dataclass(frozen=True)
class FreeCounts:
    """No counts: the candidates of the largest utility, whatever their class."""

    def divide(self, view: View, best: np.ndarray, estimate: Estimates) -> Division:
        """See `Counts`."""
        new = np.bincount(view.labels[best], minlength=view.n_classes)
        return view.counts + new, new.astype(float)


@dataclass(frozen=True)
class ErrorCounts:
    """In proportion to the classes' validation error, with a weight `shrink` in [0, 1] of equal counts."""

    shrink: float = 0.5

    def __post_init__(self) -> None:
        number("ErrorCounts: shrink", self.shrink, 0, 1)

    def divide(self, view: View, best: np.ndarray, estimate: Estimates) -> Division:
        """See `Counts`. Equal counts where there are no validation images."""
        if not len(view.validation):
            return EqualCounts().divide(view, best, estimate)
        judged = view.ensemble().probabilities[view.validation]
        errors = class_error(judged, view.labels[view.validation], view.n_classes)
        return shrunk(errors, self.shrink), errors


@dataclass(frozen=True)
class GainCounts:
    """At equal gains of an estimator (`shares_by_gain`), with a weight `shrink` in [0, 1] of equal counts."""

    estimator: Estimator
    shrink: float = 0.5

    def __post_init__(self) -> None:
        number("GainCounts: shrink", self.shrink, 0, 1)
        if isinstance(self.estimator, type) or not isinstance(self.estimator, Estimator):
            raise InputError(f"GainCounts: estimator is an object such as Ridge() or Retrain(); got {self.estimator!r}")

    def divide(self, view: View, best: np.ndarray, estimate: Estimates) -> Division:
        """See `Counts`."""
        gains = estimate(self.estimator).classes
        if gains is None:
            raise InputError(f"GainCounts: estimator {self.estimator.name!r} knows no classes")
        return shrunk(shares_by_gain(gains, view.counts), self.shrink), gains


def shares_by_gain(gain: np.ndarray, counts: np.ndarray, exponent: float = 0.5) -> np.ndarray:
    """(C,) shares of the counts at which all classes would gain equally from one more image [ours].

    The gain of one more image at `counts` falls as n^-(1 + exponent) (a power-law learning curve), so gains are equal
    at n_c in proportion to counts_c gain_c^(1 / (1 + exponent)). A gain <= 0 is noise about zero: nothing new there.
    """
    return np.maximum(counts, 1) * np.maximum(gain, 0) ** (1 / (1 + exponent))
