"""Checks of what callers give: one sentence that names the value given and what was expected."""

import difflib
import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from dqas_lib.core.errors import InputError

Kind = TypeVar("Kind")


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
        raise InputError(f"{what} is one of {', '.join(known)}; got {value!r}{nearest(value, known)}")
    return value


def nearest(value: object, known: Iterable[str]) -> str:
    """A question to append: whether the nearest of the known names was meant; nothing when none is near."""
    names = {str(name).lower(): str(name) for name in known}
    near = difflib.get_close_matches(str(value).lower(), names, n=1)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


def of_kind(what: str, value: Any, kind: type[Kind], hint: str) -> Kind:
    """The value, when it is an instance of this class; else InputError, which ends in `hint`: the way out."""
    if not isinstance(value, kind):
        raise InputError(f"{what} must be {_named(kind)}; got {_named(type(value))}: {hint}")
    return value


def _named(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOaeio' else 'a'} {kind.__name__}"


def a_path(what: str, value: Any, remedy: str = "give another path") -> Path:
    """The value as a path; InputError unless it is a text or a path, and one that a system could have."""
    if not isinstance(value, str | Path):
        raise InputError(f"{what} must be a text or a path; got {value!r}")
    try:
        os.stat(value)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # no file yet, or one that is not ours to see
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {str(value)[:100]!r} is no path ({error.args[-1]}): {remedy}") from error
    return Path(value)


def check_ratio(ratio: float, n_images: int) -> int:
    """Budget B = round(ratio * N) of an image ratio in (0, 1]; InputError unless it is one that leaves an image."""
    ratio = number("ratio", ratio, 0, 1, ends="(]")
    if n_images < 1:
        raise InputError("there are no images to select from")
    budget = round(ratio * n_images)
    if budget < 1:
        raise InputError(f"ratio {ratio!r} of {n_images:,} images leaves no image: give at least {1 / n_images:.2g}")
    return budget
