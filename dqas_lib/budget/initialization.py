"""Class-wise initialization: how the initial set is divided among the classes [abstract: the name; formulas ours]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dqas_lib.budget.class_counts import power_law_counts
from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.core.checks import check_fields, number, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.training.probabilities import shrunk

# (R,) ratios, S seeds, scale of the learners -> (R, C) sizes and (S, R, C) validation errors of class-balanced pilots;
# None where there are no validation images
RunPilots = Callable[[tuple[float, ...], int, float], tuple[np.ndarray, np.ndarray]] | None


@runtime_checkable
class Initialization(Protocol):
    """A rule for the counts of the initial set: a frozen dataclass."""

    def shares(self, sizes: np.ndarray, total: int, run_pilots: RunPilots) -> np.ndarray:
        """(C,) weights >= 0 of the counts, for (C,) images of each class and `total` images in the initial set."""


@dataclass(frozen=True)
class Proportional:
    """In proportion to the class sizes."""

    def shares(self, sizes: np.ndarray, total: int, run_pilots: RunPilots) -> np.ndarray:
        """See `Initialization`."""
        return sizes.astype(float)


@dataclass(frozen=True)
class Equal:
    """Equal counts, as far as the class sizes allow."""

    def shares(self, sizes: np.ndarray, total: int, run_pilots: RunPilots) -> np.ndarray:
        """See `Initialization`."""
        return (sizes > 0).astype(float)


@dataclass(frozen=True)
class Curves:
    """At the least error that learning curves predict (`power_law_counts`); without validation images `Proportional`.

    Args:
        ratios, seeds: Of the pilots: two or more ratios, and pilots at each of them.
        shrink: In [0, 1]: the weight of equal counts.
        learner_scale: Factor on the length of the learners' recipe.
    """

    ratios: tuple[float, ...] = (0.05, 0.1, 0.2)
    seeds: int = 1
    shrink: float = 0.5
    learner_scale: float = 0.25

    def __post_init__(self) -> None:
        check_fields(self)
        name, least = type(self).__name__, 1 if isinstance(self, ByError) else 2
        if len(set(self.ratios)) < least or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise InputError(f"{name}: ratios are at least {least} different ratios in (0, 1]; got {self.ratios!r}")
        whole_number(f"{name}: seeds", self.seeds)
        number(f"{name}: shrink", self.shrink, 0, 1)
        number(f"{name}: learner_scale", self.learner_scale, 0, ends="()")

    def shares(self, sizes: np.ndarray, total: int, run_pilots: RunPilots) -> np.ndarray:
        """See `Initialization`."""
        if run_pilots is None:
            return sizes.astype(float)
        return self._shares(sizes, total, *run_pilots(tuple(sorted(self.ratios)), self.seeds, self.learner_scale))

    def _shares(self, sizes: np.ndarray, total: int, pilot_sizes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        curves = fit_curves(pilot_sizes, errors)
        return power_law_counts(curves.a, curves.b, total, caps=sizes, shrink=self.shrink).astype(float)


@dataclass(frozen=True)
class ByError(Curves):
    """In proportion to the classes' mean validation error in pilots; options as of `Curves`, but one ratio will do."""

    ratios: tuple[float, ...] = (0.2,)

    def _shares(self, sizes: np.ndarray, total: int, pilot_sizes: np.ndarray, errors: np.ndarray) -> np.ndarray:
        return np.where(sizes > 0, shrunk(errors.mean(axis=(0, 1)), self.shrink), 0)
