"""Checks of what callers give: one sentence that names the value given and what was expected."""

import difflib
import functools
import math
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from dqas_lib.core.errors import InputError

Kind = TypeVar("Kind")
Function = TypeVar("Function", bound=Callable[..., Any])


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


def kinds(function: Function) -> Function:
    """Decorator: InputError for an argument of another kind than annotated.

    NumPy's numbers count as numbers, a list as a tuple or an array; True and False are no numbers.
    """
    names = function.__code__.co_varnames[: function.__code__.co_argcount]

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        _check(function, {**dict(zip(names, args, strict=False)), **options})
        return function(*args, **options)

    return cast(Function, checked)


def check_fields(item: Any) -> None:
    """The check of `kinds` for the fields of a dataclass, in its __post_init__."""
    _check(type(item), {part.name: getattr(item, part.name) for part in fields(item) if part.init})


_hints = functools.cache(get_type_hints)


def _check(where: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not _fits(value, hint := _hints(where).get(name, Any)):
            part = " (give its train)" * (hasattr(value, "train") and _fits(value.train, hint))
            got = f"{' '.join(str(value).split())[:80]!r}, of kind {type(value).__name__}{part}"
            raise InputError(f"{where.__qualname__}: {name} must be {_said(hint)}; got {got}")


def _fits(value: Any, hint: Any) -> bool:
    outer, inner = get_origin(hint) or hint, get_args(hint)
    if outer in (Union, UnionType):
        return any(_fits(value, part) for part in inner)
    if outer in (tuple, Sequence) or getattr(outer, "__name__", "") == "ndarray":
        several = isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping | Set)
        if outer not in (tuple, Sequence):  # an array, or what makes one of numbers
            return several and not any(isinstance(part, str | None) for part in value)
        if several and _fixed(outer, inner):
            return len(value) == len(inner) and all(map(_fits, value, inner))
        return several and (not inner or all(_fits(part, inner[0]) for part in value))
    if outer in (int, float, bool):
        is_bool = type(value).__name__ in ("bool", "bool_")  # NumPy's too
        if is_bool or outer is bool:
            return is_bool and outer is bool
        return isinstance(value, Real if outer is float else Integral) and value == value  # NaN is no number
    try:
        return isinstance(value, outer) and (outer is type or not isinstance(value, type))
    except TypeError:  # Any, or a protocol that nobody can check
        return True


def _fixed(outer: Any, inner: tuple[Any, ...]) -> bool:
    """Whether a hint is a tuple of fixed length, such as tuple[float, float]."""
    return outer is tuple and bool(inner) and inner[-1] is not Ellipsis


def _said(hint: Any) -> str:
    outer, inner = get_origin(hint) or hint, get_args(hint)
    if outer in (Union, UnionType):
        return " or ".join(map(_said, inner))
    if outer in (tuple, Sequence):
        return f"({', '.join(map(_said, inner))})" if _fixed(outer, inner) else f"several ({_said(inner[0])} each)"
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", NoneType: "None"}
    return str(words.get(outer) or getattr(outer, "__name__", outer))


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
