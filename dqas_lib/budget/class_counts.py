"""Class counts: whole numbers of images per class that sum to the budget exactly."""

import numpy as np

from dqas_lib.core.checks import kinds, number
from dqas_lib.core.errors import InputError

Bounds = np.ndarray | None


@kinds
def largest_remainder(shares: np.ndarray, total: int, caps: Bounds = None, floors: Bounds = None) -> np.ndarray:
    """(C,) whole numbers proportional to `shares` that sum to `total` exactly, within floors and caps.

    Hamilton's method. What a capped class cannot take is divided among the others in proportion.

    Args:
        shares: (C,) numbers >= 0; all zero means equal. Ties go to the lowest class.
        total: What is divided; InputError where floors or caps make it impossible.
        caps, floors: (C,) whole numbers; by default `total` and 0.
    """
    shares = np.asarray(shares, dtype=np.float64)
    n = len(shares)
    if shares.ndim != 1 or not n or not np.isfinite(shares).all() or shares.min() < 0:
        raise InputError(f"shares must be finite numbers >= 0, one per class; got {shares!r}")
    floors = np.zeros(n, dtype=np.int64) if floors is None else np.asarray(floors, dtype=np.int64)
    caps = np.full(n, max(total, 0), dtype=np.int64) if caps is None else np.asarray(caps, dtype=np.int64)
    if (floors > caps).any() or floors.min() < 0:
        raise InputError(f"floors must lie between 0 and the caps; got floors {floors.tolist()}, caps {caps.tolist()}")
    if not floors.sum() <= total <= caps.sum():
        raise InputError(f"{total} cannot be divided: the floors sum to {floors.sum()}, the caps to {caps.sum()}")
    exact = _proportional(shares, total, floors.astype(np.float64), caps.astype(np.float64))
    counts = np.clip(np.floor(exact + 1e-9).astype(np.int64), floors, caps)
    order = np.argsort(-np.round(exact - counts, 9), kind="stable")
    while (missing := total - counts.sum()) > 0:
        counts[order[counts[order] < caps[order]][:missing]] += 1
    return counts


def _proportional(shares: np.ndarray, total: int, floors: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Real numbers clip(mu * shares, floors, caps) that sum to total; equal where the shares can take no more.

    The sum is piecewise linear and rising in mu, between breakpoints f_c / s_c and u_c / s_c.
    """
    if shares.max() <= 0:
        shares = np.ones_like(shares)
    top = shares.max()
    shares = np.where(shares < top * 1e-12, 0.0, shares / top)
    live = shares > 0
    full = np.where(live, caps, floors)
    if full.sum() < total:  # every class with a share is full: the rest is divided equally
        return _proportional(np.where(live, 0.0, 1.0), total, full, caps)
    points = np.unique(np.array([floors[live], caps[live]]) / shares[live])
    sums = np.clip(points[:, None] * shares, floors, caps).sum(axis=1)
    return np.clip(np.interp(total, sums, points) * shares, floors, caps)


@kinds
def power_law_counts(
    a: np.ndarray, b: np.ndarray, total: int, *, caps: Bounds = None, floors: Bounds = None, shrink: float = 0.0
) -> np.ndarray:
    """(C,) whole counts that minimize sum_c a_c n_c^(-b_c) at sum_c n_c = total [abstract: the name; formula ours].

    Setting the derivatives equal gives n_c = (a_c b_c / mu)^(1 / (1 + b_c)); the sum falls in mu, which is bisected.

    Args:
        a, b: (C,) numbers >= 0 of the learning curves. A class that gains nothing (a b = 0) is filled last.
        total, caps, floors: As in `largest_remainder`, which makes the counts whole.
        shrink: In [0, 1]: the weight of equal counts in them.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"a and b must be finite numbers, one per class; got shapes {a.shape} and {b.shape}")
    if min(a.min(), b.min()) < 0:
        raise InputError(f"a and b must be >= 0; got minima {a.min()!r} and {b.min()!r}")
    number("shrink", shrink, 0, 1)
    low = np.zeros(len(a)) if floors is None else np.asarray(floors, dtype=np.float64)
    high = np.full(len(a), float(max(total, 0))) if caps is None else np.asarray(caps, dtype=np.float64)
    live = a * b > 0
    log_ab = np.log(np.where(live, a * b, 1.0))

    def counts(log_mu: float) -> np.ndarray:
        free = np.exp(np.minimum((log_ab - log_mu) / (1 + b), 700.0))
        return np.clip(np.where(live, free, 0.0), low, high)

    left, right = -1400.0, 1400.0  # every count is at its cap, every count is at its floor
    for _ in range(100):
        middle = (left + right) / 2
        left, right = (middle, right) if counts(middle).sum() > total else (left, middle)
    shares = counts(right)
    if shares.sum() < total - 0.5 and not live.all():  # the live classes are full
        shares = np.where(live, shares, shares + (total - shares.sum()) / (~live).sum())
    if shrink:
        equal = largest_remainder((high > 0).astype(float), total, caps, floors)
        shares = (1 - shrink) * shares + shrink * equal
    return largest_remainder(shares, total, caps, floors)
