"""Tables: tidy rows -> means with intervals, paired comparisons, files."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from dqas_lib.core.errors import InputError


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval; NaN half-width for fewer than two values."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise InputError("a mean needs at least one value; got none")
    if len(values) < 2:
        return float(values.mean()), math.nan
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def summarize(rows: pd.DataFrame, by: Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """One row a group: n, mean and half (of the 95 % interval over seeds) of `value`, in the order of appearance."""
    out = []
    for key, group in rows.groupby(list(by), sort=False):
        mean, half = mean_interval(group[value])
        out.append({**dict(zip(by, key, strict=True)), "n": len(group), "mean": mean, "half": half})
    return pd.DataFrame(out)


def paired(
    rows: pd.DataFrame, first: str, second: str, *, over: Sequence[str], by: str = "method", value: str = "accuracy"
) -> dict[str, float]:
    """Paired comparison first - second over rows equal in `over` (e.g. ["seed"]).

    Gives n, difference (mean), half (of its 95 % interval) and p (two-sided paired t test). Raises InputError when a
    pair is incomplete: means over different seeds are not compared.
    """
    table = rows.pivot(index=list(over), columns=by, values=value)
    for name in (first, second):
        if name not in table or table[name].isna().any() or len(table) == 0:
            raise InputError(f"no complete pairs of {first!r} and {second!r} over {', '.join(over)}")
    difference = (table[first] - table[second]).to_numpy()
    mean, half = mean_interval(difference)
    p = math.nan
    if len(difference) > 1:
        p = 1.0 if not difference.any() else float(stats.ttest_rel(table[first], table[second]).pvalue)
    return {"n": len(difference), "difference": mean, "half": half, "p": p}
