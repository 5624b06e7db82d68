"""Class-wise initialization: how the initial set is divided among the classes [abstract: the name; formulas ours]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from dqas_lib.budget.class_counts import power_law_counts
from dqas_lib.budget.sensitivity import Pilots, fit_curves
from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.training.probabilities import shrunk

# trains so many seeds at every ratio, with learners of a scale; None where there are no validation images
RunPilots = Callable[[tuple[float, ...], int, float], Pilots] | None


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


@dataclass(frozen=True, kw_only=True)
class _FromPilots:
    """seeds: pilots at each ratio; shrink: weight of equal counts; learner_scale: factor on the recipe's length."""

    seeds: int = 2
    shrink: float = 0.5
    learner_scale: float = 0.4

    def __post_init__(self) -> None:
        name = type(self).__name__
        whole_number(f"{name}: seeds", self.seeds)
        number(f"{name}: shrink", self.shrink, 0, 1)
        number(f"{name}: learner_scale", self.learner_scale, 0, ends="()")


@dataclass(frozen=True)
class ByError(_FromPilots):
    """In proportion to the classes' validation error in pilots on class-balanced subsets of one ratio."""

    ratio: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        number("ByError: ratio", self.ratio, 0, 1, ends="(]")

    def shares(self, sizes: np.ndarray, total: int, run_pilots: RunPilots) -> np.ndarray:
        """See `Initialization`."""
        if run_pilots is None:
            return sizes.astype(float)
        errors = run_pilots((self.ratio,), self.seeds, self.learner_scale).errors.mean(axis=(0, 1))
        return np.where(sizes > 0, shrunk(errors, self.shrink), 0)


@dataclass(frozen=True)
class Curves(_FromPilots):
    """At the least error that learning curves predict (`power_law_counts`), from pilots at two ratios or more."""

    ratios: tuple[float, ...] = (0.05, 0.1, 0.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.ratios)) < 2 or not all(0 < ratio <= 1 for ratio in self.ratios):
            raise InputError(f"Curves: ratios are at least two ratios in (0, 1]; got {self.ratios!r}")

    def shares(self, sizes: np.ndarray, total: int, run_pilots: RunPilots) -> np.ndarray:
        """See `Initialization`."""
        if run_pilots is None:
            return sizes.astype(float)
        pilots = run_pilots(tuple(sorted(self.ratios)), self.seeds, self.learner_scale)
        curves = fit_curves(pilots.sizes, pilots.errors)
        return power_law_counts(curves.a, curves.b, total, caps=sizes, shrink=self.shrink).astype(float)
