"""Stage 4, counts: whole numbers of images per class that sum to the budget exactly."""

import numpy as np

from dqas_lib.core.errors import InputError


def largest_remainder(
    shares: np.ndarray, total: int, caps: np.ndarray | None = None, floors: np.ndarray | None = None
) -> np.ndarray:
    """Whole numbers proportional to `shares` that sum to `total` exactly, within floors and caps.

    shares: (C,) numbers >= 0 (all zero: equal); caps, floors: (C,) whole numbers. What a capped class cannot take is
    divided among the others in proportion. Ties go to the lowest class. (Largest remainders: Hamilton's method.)
    Raises InputError when floors or caps make the total impossible.
    """
    shares = np.asarray(shares, dtype=np.float64)
    n = len(shares)
    if shares.ndim != 1 or not n or not np.isfinite(shares).all() or shares.min() < 0:
        raise InputError(f"shares must be finite numbers >= 0, one a class; got {shares!r}")
    floors = np.zeros(n, dtype=np.int64) if floors is None else np.asarray(floors, dtype=np.int64)
    caps = np.full(n, max(total, 0), dtype=np.int64) if caps is None else np.asarray(caps, dtype=np.int64)
    if (floors > caps).any() or floors.min() < 0:
        raise InputError(f"floors must lie between 0 and the caps; got floors {floors.tolist()}, caps {caps.tolist()}")
    if not floors.sum() <= total <= caps.sum():
        raise InputError(f"{total} cannot be divided: the floors sum to {floors.sum()}, the caps to {caps.sum()}")
    exact = _proportional(shares, total, floors.astype(np.float64), caps.astype(np.float64))
    counts = np.clip(np.floor(exact + 1e-9).astype(np.int64), floors, caps)
    missing = total - counts.sum()
    order = np.lexsort((np.arange(n), -np.round(exact - counts, 9)))
    while missing:
        for c in order:
            if missing and counts[c] < caps[c]:
                counts[c] += 1
                missing -= 1
    return counts


def _proportional(shares: np.ndarray, total: int, floors: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Real numbers clip(mu * shares, floors, caps) that sum to total; equal where the shares can take no more.

    sum_c clip(mu s_c, f_c, u_c) is piecewise linear and rising in mu: mu is found on the segment between two of its
    breakpoints f_c / s_c and u_c / s_c.
    """
    if shares.max() <= 0:
        shares = np.ones_like(shares)
    top = shares.max()
    shares = np.where(shares < top * 1e-12, 0.0, shares / top)
    live = shares > 0
    if np.where(live, caps, floors).sum() < total:  # every class with a share is full: the rest is divided equally
        full = np.where(live, caps, floors)
        return _proportional(np.where(live, 0.0, 1.0), total, np.where(live, full, floors), caps)
    points = np.unique(np.concatenate([floors[live] / shares[live], caps[live] / shares[live]]))
    sums = np.clip(points[:, None] * shares, floors, caps).sum(axis=1)
    right = min(int(np.searchsorted(sums, total)), len(points) - 1)
    if right == 0:
        return np.clip(points[0] * shares, floors, caps)
    low, high = sums[right - 1], sums[right]
    part = 0.0 if high == low else (total - low) / (high - low)
    mu = points[right - 1] + part * (points[right] - points[right - 1])
    return np.clip(mu * shares, floors, caps)


def power_law_counts(
    a: np.ndarray,
    b: np.ndarray,
    total: int,
    *,
    caps: np.ndarray | None = None,
    floors: np.ndarray | None = None,
    shrink: float = 0.0,
) -> np.ndarray:
    """(C,) whole counts that minimize sum_c a_c n_c^(-b_c) at sum_c n_c = total: class-wise initialization.

    [paper, Section 3.2: the name; the formula is ours] Setting the derivatives equal gives
    n_c = (a_c b_c / mu)^(1 / (1 + b_c)); the sum falls in mu, which is bisected.
    a, b: (C,) numbers >= 0 of the classes' learning curves; shrink: kappa in [0, 1], the share of equal counts in it;
    caps, floors: as in `largest_remainder`, which makes the counts whole. Classes that gain nothing (a b = 0) get
    images only when every other is full.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"a and b must be finite numbers, one a class; got shapes {a.shape} and {b.shape}")
    if min(a.min(), b.min()) < 0 or not 0 <= shrink <= 1:
        raise InputError(
            f"a and b must be >= 0 and shrink in [0, 1]; got minima {a.min()!r}, {b.min()!r}, shrink {shrink!r}"
        )
    n = len(a)
    low = np.zeros(n) if floors is None else np.asarray(floors, dtype=np.float64)
    high = np.full(n, float(max(total, 0))) if caps is None else np.asarray(caps, dtype=np.float64)
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
    equal = largest_remainder((high > 0).astype(float), total, caps, floors) if shrink else shares
    mixed = (1 - shrink) * shares + shrink * equal
    return largest_remainder(mixed, total, caps, floors)
