"""What many selection methods share: how the budget is divided over classes, and choosing by a score."""

from collections.abc import Callable

import numpy as np

from dqas_lib.budget import largest_remainder
from dqas_lib.errors import InputError
from dqas_lib.methods.base import Workbench

BALANCES = ("proportional", "equal", "free")

Pick = Callable[[np.ndarray, int], np.ndarray]


def check_balance(balance: str) -> None:
    """InputError unless the balance is "proportional", "equal" or "free"."""
    if balance not in BALANCES:
        raise InputError(f"balance is one of {', '.join(BALANCES)}; got {balance!r}")


def quotas(bench: Workbench, budget: int, balance: str) -> np.ndarray:
    """(C,) images to choose of each class: "proportional" to its size, or "equal" as far as the sizes allow."""
    check_balance(balance)
    if not bench.labelled:
        raise InputError(f"balance {balance!r} needs labels, which the workbench does not have: give balance='free'")
    sizes = bench.images.class_counts
    shares = sizes if balance == "proportional" else (sizes > 0).astype(np.float64)
    return largest_remainder(shares, budget, caps=sizes)


def groups(bench: Workbench, budget: int, balance: str) -> list[tuple[np.ndarray, int]]:
    """(positions, how many to choose of them) of every class, or of all images with balance "free".

    Positions are in the order of the ids, so that "ties to the lowest position" means "to the lowest id".
    """
    check_balance(balance)
    if balance == "free":
        return [(bench.by_id, budget)]
    counts = quotas(bench, budget, balance)
    labels = bench.images.labels[bench.by_id]
    return [(bench.by_id[labels == label], int(count)) for label, count in enumerate(counts) if count]


def in_each_group(bench: Workbench, budget: int, balance: str, pick: Pick) -> np.ndarray:
    """Positions chosen group by group: pick(members, count) gives `count` places within `members`."""
    return np.concatenate([members[pick(members, count)] for members, count in groups(bench, budget, balance)])


def by_score(bench: Workbench, scores: np.ndarray, budget: int, balance: str) -> np.ndarray:
    """Positions of the images with the largest scores, within classes or over all; ties to the lowest id."""
    return in_each_group(
        bench, budget, balance, lambda members, count: np.argsort(-scores[members], kind="stable")[:count]
    )
