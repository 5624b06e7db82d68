"""Statistics of tidy rows: means with intervals over seeds, paired comparisons, corrected for their number.

Below three seeds there is no interval and no p (NaN): two runs do not tell how runs vary. [ours]
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from dqas_lib.core.checks import kinds, number, one_of, whole_number
from dqas_lib.core.errors import InputError

FEWEST = 3  # values that an interval, a p or a correlation needs

Values = Sequence[float] | np.ndarray | pd.Series


def _numbers(what: str, values: Values) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1:
        raise InputError(f"{what} must be a list of numbers; got {str(values)[:200]}")
    return array


def _need(rows: pd.DataFrame, columns: Sequence[str], *others: str) -> None:
    if not len(columns):
        raise InputError(f"give at least one column; got {columns!r}")
    for name in (*columns, *others):
        one_of("a column of the rows", name, map(str, rows))


@kinds
def mean_interval(values: Values, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval; NaN half-width for fewer than three values."""
    values = _numbers("values", values)
    number("confidence", confidence, 0, 1, ends="()")
    if not len(values):
        raise InputError("a mean needs at least one value; got []")
    if len(values) < FEWEST:
        return float(values.mean()), math.nan
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


@kinds
def sample_error(accuracy: float, n_test: int, confidence: float = 0.95) -> float:
    """Half-width of the interval of an accuracy over test samples of n_test images: what no number of seeds removes."""
    number("accuracy", accuracy, 0, 1)
    whole_number("n_test", n_test)
    return float(stats.norm.ppf(0.5 + confidence / 2) * math.sqrt(accuracy * (1 - accuracy) / n_test))


def in_points(value: float, half: float = math.nan, form: str = ".1f") -> str:
    """A fraction in percent or points, with half of its interval where there is one: "78.2 ± 0.4"."""
    return f"{100 * value:{form}}" + (f" ± {100 * half:.1f}" if math.isfinite(half) else "")


@kinds
def summarize(rows: pd.DataFrame, by: Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """One row per group: n, mean and half (of the 95 % interval over seeds) of `value`, in the order of appearance."""
    _need(rows, by, value)
    out = []
    for key, group in rows.groupby(list(by), sort=False):
        mean, half = mean_interval(group[value])
        out.append({**dict(zip(by, key, strict=True)), "n": len(group), "mean": mean, "half": half})
    return pd.DataFrame(out)


@kinds
def paired(
    rows: pd.DataFrame, first: str, second: str, *, over: Sequence[str], by: str = "method", value: str = "accuracy"
) -> dict[str, float]:
    """Paired comparison first - second over rows equal in `over` (e.g. ["seed"]); InputError for an incomplete pair.

    Returns:
        n, difference (mean), half (of its 95 % interval), p (two-sided paired t test) and correlation (Pearson's, of
        the pairs: near 0 the pairing removed nothing, the luck of each training is still in the difference).
    """
    _need(rows, over, by, value)
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


@kinds
def rank_correlation(first: Values, second: Values, *, n_copies: int = 2000) -> dict[str, float]:
    """Spearman's correlation of two (n,) arrays, and its 95 % interval by resampling the n pairs [ours].

    Returns:
        correlation, low and high; NaN where one of the arrays has fewer than three different values.
    """
    one, other = _numbers("first", first), _numbers("second", second)
    if len(one) != len(other):
        raise InputError(f"a correlation is of pairs; got {len(one)} and {len(other)} values")
    table = np.stack([one, other])
    if min(len(np.unique(values)) for values in table) < FEWEST:
        return {"correlation": math.nan, "low": math.nan, "high": math.nan}
    picks = np.random.default_rng(0).integers(table.shape[1], size=(n_copies, table.shape[1]))
    ranks = stats.rankdata(table[:, picks], axis=2)
    ranks -= ranks.mean(axis=2, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=2)).prod(axis=0)
    copies = (ranks[0] * ranks[1]).sum(axis=1)[lengths > 0] / lengths[lengths > 0]
    low, high = np.quantile(copies, [0.025, 0.975])
    return {"correlation": float(stats.spearmanr(*table).statistic), "low": float(low), "high": float(high)}


@kinds
def holm(p: Values) -> np.ndarray:
    """P-values of one table, corrected for their number by Holm's step-down rule; NaN stays NaN and does not count."""
    p = _numbers("p", p)
    if ((p < 0) | (p > 1)).any():
        raise InputError(f"p lies in [0, 1]; got {p.tolist()}")
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sorts last
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(order), 0, -1) * p[order]), 1.0)
    return corrected


@kinds
def differences(
    rows: pd.DataFrame,
    first: str | Sequence[str],
    second: str | Sequence[str],
    *,
    by: Sequence[str] = ("ratio",),
    over: Sequence[str] = ("seed",),
    column: str = "method",
    value: str = "accuracy",
) -> pd.DataFrame:
    """A table of `paired` differences, their p-values corrected for its length.

    Args:
        first, second: What is compared: one of `column`, or several.
        by: Columns; every group of equal values there has its own lines.
        over, column, value: As in `paired`, where column is called `by`.

    Returns:
        One row per group, first and second: the columns of `by`, first, second, those of `paired`, p_holm.
    """
    ones, others = ([names] if isinstance(names, str) else list(names) for names in (first, second))
    _need(rows, by, *over, column, value)
    out = [
        {**dict(zip(by, key, strict=True)), "first": one, "second": other}
        | paired(group, one, other, over=over, by=column, value=value)
        for key, group in rows.groupby(list(by), sort=False)
        for one in ones
        for other in others
        if one != other
    ]
    table = pd.DataFrame(out)
    return table.assign(p_holm=holm(table["p"])) if out else table


@kinds
def in_words(pairs: pd.DataFrame, labels: Sequence[str]) -> str:
    """What the rows of a table of `differences` show, in sentences; labels: what each row is called there."""
    named = pairs.assign(label=list(labels)).sort_values("difference", ascending=False, kind="stable")
    numbers = zip(named["difference"], named["half"], named["label"], strict=True)
    told = [f"{in_points(difference, half, '+.1f')} points ({label})" for difference, half, label in numbers]
    text = f"The differences run from {told[-1]} to {told[0]}." if len(told) > 1 else f"The difference is {told[0]}."
    tested = named[named["p_holm"].notna()]
    if tested.empty:
        return f"{text} Fewer than three seeds have no interval: this is a first look, not a result."
    shown, sign = tested["p_holm"] < 0.05, tested["difference"] > 0
    above, below = (", ".join(tested["label"][shown & side]) or "none" for side in (sign, ~sign))
    text += f" Corrected by Holm at 5 % (comparisons: {len(tested)}), above zero: {above}; below zero: {below}; "
    text += f"open: {sum(~shown)}."
    known = tested["correlation"].dropna()
    if known.empty:
        return text
    return (
        f"{text} Pairs correlate by {known.min():+.2f} to {known.max():+.2f}: at +1 pairing removes all the luck of a "
        "training, at 0 none."
    )
