"""Statistics of tidy rows: means with intervals over seeds, paired comparisons, corrected for their number.

Below three seeds there is no interval and no p (NaN): two runs do not tell how runs vary. [ours]
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from dqas_lib.core.errors import InputError

FEWEST = 3  # values that an interval, a p or a correlation needs

Values = Sequence[float] | np.ndarray | pd.Series


def mean_interval(values: Values, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval; NaN half-width for fewer than three values."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise InputError("a mean needs at least one value; got none")
    if len(values) < FEWEST:
        return float(values.mean()), math.nan
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def sample_error(accuracy: float, n_test: int, confidence: float = 0.95) -> float:
    """Half-width of the interval of an accuracy over test samples of n_test images: what no number of seeds removes."""
    return float(stats.norm.ppf(0.5 + confidence / 2) * math.sqrt(accuracy * (1 - accuracy) / n_test))


def in_points(value: float, half: float = math.nan, form: str = ".1f") -> str:
    """A fraction in percent or points, with half of its interval where there is one: "78.2 ± 0.4"."""
    return f"{100 * value:{form}}" + (f" ± {100 * half:.1f}" if math.isfinite(half) else "")


def summarize(rows: pd.DataFrame, by: Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """One row per group: n, mean and half (of the 95 % interval over seeds) of `value`, in the order of appearance."""
    out = []
    for key, group in rows.groupby(list(by), sort=False):
        mean, half = mean_interval(group[value])
        out.append({**dict(zip(by, key, strict=True)), "n": len(group), "mean": mean, "half": half})
    return pd.DataFrame(out)


def paired(
    rows: pd.DataFrame, first: str, second: str, *, over: Sequence[str], by: str = "method", value: str = "accuracy"
) -> dict[str, float]:
    """Paired comparison first - second over rows equal in `over` (e.g. ["seed"]); InputError for an incomplete pair.

    Returns:
        n, difference (mean), half (of its 95 % interval), p (two-sided paired t test) and correlation (Pearson's, of
        the pairs: near 0 the pairing removed nothing, the luck of each training is still in the difference).
    """
    table = rows.pivot(index=list(over), columns=by, values=value)
    for name in (first, second):
        if name not in table or table[name].isna().any() or len(table) == 0:
            raise InputError(f"no complete pairs of {first!r} and {second!r} over {', '.join(over)}")
    one, other = table[first].to_numpy(dtype=np.float64), table[second].to_numpy(dtype=np.float64)
    mean, half = mean_interval(one - other)
    p = correlation = math.nan
    if len(one) >= FEWEST:
        p = float(stats.ttest_rel(one, other).pvalue) if (one != other).any() else 1.0
        if np.ptp(one) and np.ptp(other):
            correlation = float(np.corrcoef(one, other)[0, 1])
    return {"n": len(one), "difference": mean, "half": half, "p": p, "correlation": correlation}


def rank_correlation(first: Values, second: Values, *, n_copies: int = 2000) -> dict[str, float]:
    """Spearman's correlation of two (n,) arrays, and its 95 % interval by resampling the n pairs [ours].

    Returns:
        correlation, low and high; NaN where one of the arrays has fewer than three different values.
    """
    table = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    if min(len(np.unique(values)) for values in table) < FEWEST:
        return {"correlation": math.nan, "low": math.nan, "high": math.nan}
    picks = np.random.default_rng(0).integers(table.shape[1], size=(n_copies, table.shape[1]))
    ranks = stats.rankdata(table[:, picks], axis=2)
    ranks -= ranks.mean(axis=2, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=2)).prod(axis=0)
    copies = (ranks[0] * ranks[1]).sum(axis=1)[lengths > 0] / lengths[lengths > 0]
    low, high = np.quantile(copies, [0.025, 0.975])
    return {"correlation": float(stats.spearmanr(*table).statistic), "low": float(low), "high": float(high)}


def holm(p: Values) -> np.ndarray:
    """P-values of one table, corrected for their number by Holm's step-down rule; NaN stays NaN and does not count."""
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * p[order]), 1.0)
    return corrected
