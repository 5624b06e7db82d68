"""What a selection method is, the registry of them, and what many of them share.

A method is any object with a `name` and `select(pool, budget)`. The kit's own are frozen dataclasses: their fields are
their options, so they can be read, compared and written into a result's provenance, and a mistyped option is an error.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.digests import is_ours
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.core.seeds import generator
from dqas_lib.pool import Pool

BALANCES = ("proportional", "equal", "free")

Pick = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Choice:
    """What a method selected.

    Args:
        positions: (B,) distinct positions in the pool's images.
        weights: (B,) loss weights >= 0, where the method defines them.
        trace: Arrays that tell how it came about, for notebooks and explorers.
    """

    positions: np.ndarray
    weights: np.ndarray | None = None
    trace: dict[str, np.ndarray] = field(default_factory=dict)


class Method(Protocol):
    """A selection method. `needs`, where it has them, names what it uses of the pool (of `pool.NEEDS`)."""

    name: str

    def select(self, pool: Pool, budget: int) -> "Choice | np.ndarray":
        """Select `budget` distinct positions, 1 <= budget <= N: as a `Choice`, or the positions alone."""
        ...


METHODS: Registry[Any] = Registry("method")
register = METHODS.register


def get_method(method: "str | Method") -> Method:
    """A method by its registered name, with its default options, or the given object.

    Raises:
        InputError: For an unknown name, a class in place of an object, or an object without `name` and `select`.
    """
    if isinstance(method, str):
        found = METHODS[method]
        return found() if isinstance(found, type) else found
    if isinstance(method, type):
        raise InputError(f"{method.__name__} is a class: give an object of it, {method.__name__}()")
    if not isinstance(getattr(method, "name", None), str) or not callable(getattr(method, "select", None)):
        raise InputError(
            f"not a selection method: {method!r} lacks a name or select(pool, budget); the known ones are "
            f"{', '.join(METHODS)}"
        )
    return method


def options(method: Method) -> dict[str, Any]:
    """A method's name and options as plain values, for store keys and provenance."""
    if dataclasses.is_dataclass(method):
        return {"name": method.name, **dataclasses.asdict(method)}
    return {"name": method.name, "class": type(method).__qualname__}


def can_be_kept(method: Method) -> bool:
    """Whether selections of this method may be kept in a store: only of the library's own is the code known."""
    return is_ours(type(method)) and dataclasses.is_dataclass(method)


def checked(method: Method, pool: Pool, budget: int) -> Choice:
    """What the method selects, after checking it.

    Raises:
        InputError: When it gave anything but `budget` distinct positions in [0, N), or weights that do not fit them.
    """
    found = method.select(pool, budget)
    choice = found if isinstance(found, Choice) else Choice(found)
    positions, gave = np.asarray(choice.positions), f"method {method.name!r} gave"
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise InputError(f"{gave} {type(found).__name__} instead of ({budget},) whole numbers, positions in the pool")
    outside = positions[(positions < 0) | (positions >= len(pool.images))]
    if len(outside):
        raise InputError(f"{gave} position {outside[0]}, but the pool has {len(pool.images)} images")
    distinct = len(np.unique(positions))
    if len(positions) != budget or distinct != budget:
        raise InputError(f"{gave} {len(positions)} positions, {distinct} of them distinct, instead of {budget}")
    weights = choice.weights
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != positions.shape or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
            raise InputError(f"{gave} weights that are not {budget} finite numbers >= 0, some above 0")
    return dataclasses.replace(choice, positions=positions.astype(np.int64))


def check_balance(balance: str) -> None:
    """InputError unless the balance is "proportional", "equal" or "free"."""
    if balance not in BALANCES:
        raise InputError(f"balance is one of {', '.join(BALANCES)}; got {balance!r}")


def quotas(pool: Pool, budget: int, balance: str) -> np.ndarray:
    """(C,) images to select of each class: "proportional" to its size, or "equal" as far as the sizes allow."""
    check_balance(balance)
    if not pool.labeled:
        raise InputError(f"balance {balance!r} needs labels, which the pool does not have: give balance='free'")
    sizes = pool.images.class_counts
    shares = sizes if balance == "proportional" else (sizes > 0).astype(np.float64)
    return largest_remainder(shares, budget, caps=sizes)


def groups(pool: Pool, budget: int, balance: str) -> list[tuple[np.ndarray, int]]:
    """(positions, how many to select of them) of every class, or of all images with balance "free".

    Positions are in the order of the ids, so that "ties to the lowest position" means "to the lowest id".
    """
    check_balance(balance)
    if balance == "free":
        return [(pool.by_id, budget)]
    counts = quotas(pool, budget, balance)
    labels = pool.images.labels[pool.by_id]
    return [(pool.by_id[labels == label], int(count)) for label, count in enumerate(counts) if count]


def in_each_group(pool: Pool, budget: int, balance: str, pick: Pick) -> np.ndarray:
    """Positions selected group by group: pick(members, count) gives `count` places within `members`."""
    return np.concatenate([members[pick(members, count)] for members, count in groups(pool, budget, balance)])


def by_score(pool: Pool, scores: np.ndarray, budget: int, balance: str) -> np.ndarray:
    """Positions of the images with the largest scores, within classes or over all; ties to the lowest id."""
    return in_each_group(
        pool, budget, balance, lambda members, count: np.argsort(-scores[members], kind="stable")[:count]
    )


def draw_within_classes(pool: Pool, candidates: np.ndarray, counts: np.ndarray, *, use: str) -> np.ndarray:
    """counts[c] candidates of each class c, uniformly; depends on the images' ids, not on their order."""
    images = pool.images
    chosen = []
    for label, count in enumerate(counts):
        members = candidates[images.labels[candidates] == label]
        members = members[np.argsort(images.ids[members], kind="stable")]
        chosen.append(generator(pool.seed, use, label).permutation(members)[:count])
    return np.concatenate(chosen)
