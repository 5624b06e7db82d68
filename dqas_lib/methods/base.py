"""What a selection method is, the registry of them, and what many of them share.

A method is any object with a `name` and `select(pool, budget)`. The kit's own are frozen dataclasses, whose fields are
their options. Many say only what is their own: `ScoreMethod` a score per image, `GroupMethod` how to pick in a class.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from dqas_lib.bins.bins import Bins
from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.checks import check_fields, one_of
from dqas_lib.core.digests import is_ours
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.core.seeds import generator
from dqas_lib.pool import Pool

BALANCES = ("proportional", "equal", "free")
PLAIN = (bool, int, float, str, tuple, list, dict, type(None))  # options that are values, not objects with options


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

    @property
    def name(self) -> str:
        """What registries, tables and plots call it."""

    def select(self, pool: Pool, budget: int) -> "Choice | np.ndarray":
        """Select `budget` distinct positions, 1 <= budget <= N: as a `Choice`, or the positions alone."""


METHODS: Registry[Any] = Registry("method")
register = METHODS.register


def get_method(method: str | Method | Any) -> Method:
    """A method by its registered name, with its default options, or the given object; InputError for anything else."""
    if isinstance(method, str):
        known = METHODS[method]
        return known() if isinstance(known, type) else known
    if isinstance(method, type):
        raise InputError(f"{method.__name__} is a class: give an object of it, {method.__name__}()")
    name, select = (getattr(method, part, None) for part in ("name", "select"))
    if not isinstance(name, str) or not callable(select):
        raise InputError(
            f"not a selection method: {method!r} lacks a name or select(pool, budget); the known ones are "
            f"{', '.join(METHODS)}"
        )
    return method


def options(method: Any) -> dict[str, Any]:
    """A method's name and options, and those of objects among the options, as plain values: for keys and provenance."""
    name = getattr(method, "name", type(method).__name__)
    if not dataclasses.is_dataclass(method):
        return {"name": name, "class": type(method).__qualname__}
    values = {option.name: getattr(method, option.name) for option in dataclasses.fields(method)}
    return {"name": name} | {
        key: value if isinstance(value, PLAIN) else options(value) for key, value in values.items()
    }


def parts(method: Any) -> list[Any]:
    """A method and the objects in its options, and in theirs."""
    values = [getattr(method, f.name) for f in dataclasses.fields(method)] if dataclasses.is_dataclass(method) else []
    return [method] + [part for value in values if not isinstance(value, PLAIN) for part in parts(value)]


def can_be_kept(method: Method) -> bool:
    """Whether a store may keep selections of this method: only of the library's own is the code known."""
    return all(is_ours(type(part)) and dataclasses.is_dataclass(part) for part in parts(method))


def checked(method: Method, pool: Pool, budget: int) -> Choice:
    """What the method selects; InputError for anything but distinct positions in [0, N), and weights that fit them."""
    result, gave = method.select(pool, budget), f"method {method.name!r} gave"
    choice = result if isinstance(result, Choice) else Choice(result)
    try:
        positions = np.asarray(choice.positions)
    except ValueError:  # lists of unequal lengths
        positions = np.empty((0, 0))
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise InputError(f"{gave} {type(result).__name__} instead of ({budget},) whole numbers, positions in the pool")
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


def quotas(pool: Pool, budget: int, balance: str) -> np.ndarray:
    """(C,) images to select per class: "proportional" to its size, or "equal" as far as the sizes allow."""
    one_of("balance", balance, BALANCES)
    if not pool.labeled:
        raise InputError(f"balance {balance!r} needs labels, which the pool does not have: give balance='free'")
    sizes = pool.images.class_counts
    shares = sizes if balance == "proportional" else (sizes > 0).astype(np.float64)
    return largest_remainder(shares, budget, caps=sizes)


def groups(pool: Pool, budget: int, balance: str) -> list[tuple[np.ndarray, int]]:
    """(positions in the order of the ids, how many to select) of every class, or of all images with balance "free"."""
    if balance == "free":
        return [(pool.by_id, budget)]
    counts = quotas(pool, budget, balance)
    labels = pool.images.labels[pool.by_id]
    return [(pool.by_id[labels == label], int(count)) for label, count in enumerate(counts) if count]


def by_score(pool: Pool, scores: np.ndarray, budget: int, balance: str) -> np.ndarray:
    """Positions of the images with the largest (N,) scores, per class or over all; ties to the lowest id."""
    each = groups(pool, budget, balance)
    return np.concatenate([rows[np.argsort(-scores[rows], kind="stable")[:count]] for rows, count in each])


def option(default: Any, check: Callable[[str, Any], object]) -> Any:
    """An option of a `GroupMethod`; as one is made, check(name, value) raises InputError for a wrong value."""
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class GroupMethod:
    """A method that selects within each class, or with balance "free" within all images. Subclasses give `pick`.

    balance: images per class, "proportional" to its size, "equal", or "free" (whatever the picks come to).
    A class says its name and needs as it is made: `class Herding(GroupMethod, name="herding", needs=("features",))`.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    balance: str = "proportional"

    def __init_subclass__(cls, name: str = "", needs: tuple[str, ...] | None = None) -> None:
        super().__init_subclass__()
        cls.name, cls.needs = name or cls.name, cls.needs if needs is None else needs

    def __post_init__(self) -> None:
        check_fields(self)
        one_of("balance", self.balance, BALANCES)
        for item in dataclasses.fields(self):
            if "check" in item.metadata:
                item.metadata["check"](item.name, getattr(self, item.name))

    def pick(self, pool: Pool, rows: np.ndarray, count: int) -> np.ndarray:
        """`count` places within these positions, in the order picked."""
        raise NotImplementedError

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        each = groups(pool, budget, self.balance)
        return Choice(np.concatenate([rows[self.pick(pool, rows, count)] for rows, count in each]))


@dataclass(frozen=True)
class ScoreMethod(GroupMethod):
    """A method that selects the images with the largest scores, ties to the lowest id. Subclasses give `scores`."""

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) scores of the pool's images; the largest are selected."""
        raise NotImplementedError

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,)."""
        pool.check(self)
        scores = self.scores(pool)
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})


def draw_within_classes(pool: Pool, candidates: np.ndarray, counts: np.ndarray, *, use: str) -> np.ndarray:
    """counts[c] candidates of each class c, uniformly; depends on the images' ids, not on their order."""
    candidates = candidates[np.argsort(pool.images.ids[candidates], kind="stable")]
    members = [candidates[pool.images.labels[candidates] == label] for label in range(len(counts))]
    draws = [generator(pool.seed, use, label).permutation(rows) for label, rows in enumerate(members)]
    return np.concatenate([rows[:count] for rows, count in zip(draws, counts, strict=True)])


def draw_from_bins(pool: Pool, bins: Bins, candidates: np.ndarray, counts: np.ndarray, *, use: str) -> np.ndarray:
    """counts[c] candidates of each class c, in equal shares from its bins, uniformly within a bin.

    Every bin draws from a stream of its own (public DQ code: the same for all); which give a remainder is drawn too.
    """
    selected = [np.zeros(0, dtype=np.int64)]
    candidates = candidates[np.argsort(pool.images.ids[candidates], kind="stable")]
    for label in np.flatnonzero(counts).tolist():
        members = candidates[pool.images.labels[candidates] == label]
        sizes = np.bincount(bins.bin[members], minlength=bins.n_bins)
        first = generator(pool.seed, use, label, "remainders").permutation(bins.n_bins)
        quota = np.empty_like(sizes)
        quota[first] = largest_remainder(sizes[first], int(counts[label]), caps=sizes[first])
        for number in np.flatnonzero(quota).tolist():
            inside = members[bins.bin[members] == number]
            selected.append(generator(pool.seed, use, label, number).permutation(inside)[: quota[number]])
    return np.concatenate(selected)
