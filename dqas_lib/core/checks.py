"""Checks of what callers give: one sentence that names the value given and what was expected."""

import math
import operator
from collections.abc import Iterable
from typing import Any

from dqas_lib.core.errors import InputError


def whole_number(what: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """The value as an int; InputError unless it is a whole number (no bool) in [low, high]."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low or (high is not None and number > high):
        bounds = f">= {low}" if high is None else f"from {low} to {high:,}"
        raise InputError(f"{what} must be a whole number {bounds}; got {value!r}")
    return number


def number(what: str, value: Any, low: float, high: float = math.inf, *, ends: str = "[]") -> float:
    """The value as a float; InputError unless it is a number (no bool, no NaN) between low and high.

    ends: which ends belong to it, such as "(]" for low < value <= high; an infinite end never does.
    """
    is_number = isinstance(value, int | float) or (hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0)
    real = float(value) if is_number and not isinstance(value, bool) else math.nan
    above = real > low or (ends[0] == "[" and real == low)
    below = real < high or (ends[1] == "]" and real == high < math.inf)
    if not (above and below):
        open_ended, bounded = (
            f"{'>=' if ends[0] == '[' else 'above'} {low:g}",
            f"in {ends[0]}{low:g}, {high:g}{ends[1]}",
        )
        raise InputError(f"{what} must be a number {open_ended if high == math.inf else bounded}; got {value!r}")
    return real


def one_of(what: str, value: Any, known: Iterable[str]) -> str:
    """The value, when it is one of the known names; else InputError that lists them."""
    known = tuple(known)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{what} is one of {', '.join(known)}; got {value!r}")
    return value


def check_ratio(ratio: float, n_images: int) -> int:
    """Budget B = round(ratio * N) of an image ratio in (0, 1]; InputError unless it is one that leaves an image."""
    ratio = number("ratio", ratio, 0, 1, ends="(]")
    if n_images < 1:
        raise InputError("there are no images to select from")
    budget = round(ratio * n_images)
    if budget < 1:
        raise InputError(f"ratio {ratio!r} of {n_images:,} images leaves no image: give at least {1 / n_images:.2g}")
    return budget
