"""Class sensitivity: which classes lose most when they lose images [abstract; formulas ours].

Networks are trained on subsets of several sizes and seeds; every class's validation error is fitted by a bounded power
law err_c(n) = a_c n^(-b_c) + e_c. Sensitivity is s_c(n) = -d err_c / d ln n = a_c b_c n^(-b_c): what the class's error
loses when its images grow by a factor e. Seeds differ by about a point of a class's recall, so every sensitivity has an
interval, and a class is named sensitive or stable only where the interval says so.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dqas_lib.core.checks import kinds
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import generator

EXPONENTS = np.concatenate([np.arange(0.05, 1.0, 0.05), np.arange(1.0, 2.01, 0.1)])


@dataclass(frozen=True, eq=False)
class Pilots:
    """Trainings on R sizes of subset, (R, C) images of each class, with S seeds each.

    Args:
        errors: (S, R, C) validation error: the mean probability missing at the true class, smoother than 1 - recall.
        recall, accuracy: (S, R, C) and (S, R) fraction of a class's, of all validation images predicted right.
    """

    sizes: np.ndarray
    errors: np.ndarray
    recall: np.ndarray
    accuracy: np.ndarray


class Sensitivity(NamedTuple):
    """(C,) value, and the ends of its interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, eq=False)
class ClassCurves:
    """Learning curves err_c(n) = a_c n^(-b_c) + e_c, (C,) each.

    copies: (3, T, C) a, b and e of T bootstrap fits; n_seeds: S, the seeds the copies were drawn from.
    """

    a: np.ndarray
    b: np.ndarray
    e: np.ndarray
    copies: np.ndarray = field(repr=False)
    n_seeds: int = 1

    def error(self, n: np.ndarray | float) -> np.ndarray:
        """(..., C) error at n images per class: a number, or an array that broadcasts against (C,)."""
        return self.a * np.asarray(n, dtype=np.float64) ** -self.b + self.e

    def sensitivity(self, n: np.ndarray | float, *, relative: bool = False, confidence: float = 0.95) -> Sensitivity:
        """Points of error (in [0, 1]) each class loses per e-fold of data, at n images per class, with its interval.

        relative: minus the mean over the classes, so that 0 is an ordinary class. The interval is Student's t with
        S - 1 degrees of freedom times the spread of the bootstrap copies, widened by sqrt(S / (S - 1)), because S
        resampled seeds vary less than S new ones; NaN for one seed.
        """
        a, b, _ = self.copies
        value, spread = self.a * self.b * n**-self.b, a * b * n**-b
        if relative:
            value, spread = value - value.mean(), spread - spread.mean(axis=1, keepdims=True)
        half = np.full(len(value), np.nan)
        if self.n_seeds > 1:
            from scipy.special import stdtrit  # slow to import

            widened = np.sqrt(self.n_seeds / (self.n_seeds - 1))
            half = stdtrit(self.n_seeds - 1, 0.5 + confidence / 2) * widened * spread.std(axis=0, ddof=1)
        return Sensitivity(value, value - half, value + half)

    def named(self, n: np.ndarray | float, *, confidence: float = 0.95) -> np.ndarray:
        """(C,) 1 for a sensitive class, -1 for a stable one, 0 where the interval does not part it from the mean."""
        interval = self.sensitivity(n, relative=True, confidence=confidence)
        return (interval.low > 0).astype(np.int64) - (interval.high < 0)


@kinds
def fit_curves(
    sizes: np.ndarray, errors: np.ndarray, *, shared_exponent: bool = True, n_copies: int = 200, seed: int = 0
) -> ClassCurves:
    """Bounded least-squares power laws, and `n_copies` bootstrap copies over seeds [ours].

    For every exponent of a grid in [0.05, 2] the best a >= 0 and e >= 0 have a closed form; that of the least squared
    error is taken.

    Args:
        sizes: (R, C) images of each class, R >= 2 different ones.
        errors: (S, R, C) in [0, 1].
        shared_exponent: One for all classes (three sizes hardly tell a, b and e apart in a class), or one per class.
        n_copies, seed: Of the bootstrap.
    """
    sizes, errors = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if errors.ndim != 3 or errors.shape[1:] != sizes.shape or not len(errors):
        raise InputError(f"errors must be (seeds, ratios, classes) for sizes {sizes.shape}; got {errors.shape}")
    if len(np.unique(sizes.sum(axis=1))) < 2:
        raise InputError(f"a learning curve needs at least two different sizes; got {sizes.tolist()}")
    if not np.isfinite(errors).all():
        raise InputError(f"{(~np.isfinite(errors)).sum()} errors are NaN or infinite: a class lacks validation images")
    picks = generator(seed, "bootstrap of curves").integers(len(errors), size=(n_copies, len(errors)))
    means = np.concatenate([errors.mean(axis=0)[None], errors[picks].mean(axis=1)])
    a, b, e = fits = _fit(np.maximum(sizes, 0.5), means, shared_exponent)
    return ClassCurves(a[0], b[0], e[0], fits[:, 1:], len(errors))


def _fit(sizes: np.ndarray, errors: np.ndarray, shared: bool) -> np.ndarray:
    """(3, T, C) a, b and e of errors (T, R, C)."""
    losses, fits = [], []
    for b in EXPONENTS:
        x = sizes**-b
        centered = x - x.mean(axis=0)
        a = np.maximum((centered * errors).sum(axis=1) / np.maximum((centered**2).sum(axis=0), 1e-300), 0)
        e = errors.mean(axis=1) - a * x.mean(axis=0)
        through_zero = np.maximum((x * errors).sum(axis=1) / (x**2).sum(axis=0), 0)
        a, e = np.where(e < 0, through_zero, a), np.maximum(e, 0)
        losses.append(((a[:, None] * x + e[:, None] - errors) ** 2).sum(axis=1))
        fits.append((a, np.full_like(a, b), e))
    loss = np.stack(losses)
    if shared:
        loss = np.broadcast_to(loss.sum(axis=2, keepdims=True), loss.shape)
    return np.take_along_axis(np.stack(fits), loss.argmin(axis=0)[None, None], axis=0)[0]
