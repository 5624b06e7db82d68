"""Survey: everything registered at one ratio -> tidy rows, and an overview against a reference."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dqas_lib.core.checks import one_of
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.compare import FULL, Sources, compare, labeled
from dqas_lib.experiments.makers import MAKERS, Maker
from dqas_lib.experiments.statistics import holm, mean_interval, paired
from dqas_lib.methods import METHODS
from dqas_lib.methods.base import Method
from dqas_lib.methods.dq import DQ
from dqas_lib.training.setting import Setting

MEASURES = ("accuracy", "macro_accuracy")  # columns of the rows; the second is the mean over the classes


def all_methods() -> dict[str, str | Method]:
    """Label -> method: every registered one, DQ as published (in gradient space), and training on all images."""
    return {FULL: FULL, **{name: name for name in METHODS}, "dq, gradients": DQ(space="gradients")}


def survey(
    data: DataSet,
    ratio: float,
    seeds: Sequence[int],
    *,
    methods: Sources | None = None,
    others: Sequence[str | Maker] | None = None,
    setting: Setting | None = None,
    workers: int | None = None,
    measure: str = "accuracy",
) -> pd.DataFrame:
    """Every method and maker at one ratio over some seeds: the rows of `compare`, the best mean of the measure first.

    Args:
        data, ratio, seeds, setting, workers: As in `compare`.
        methods: Default: `all_methods`.
        others: Makers beside them (default: all of `MAKERS`: distilled images, all images re-encoded).
        measure: Of MEASURES ("macro_accuracy" for imbalanced data).

    Raises:
        InputError: For an unknown measure, and for what `compare` refuses.
    """
    one_of("measure", measure, MEASURES)
    sources = {**labeled(all_methods() if methods is None else methods), **labeled(list(others or MAKERS))}
    table = compare(data, sources, [ratio], seeds, setting=setting, workers=workers).rows
    mean = table.groupby("method")[measure].transform("mean")
    return table.iloc[np.lexsort((table["seed"], table["method"], -mean))].reset_index(drop=True)


def overview(rows: pd.DataFrame, reference: str = "random", *, measure: str = "accuracy") -> pd.DataFrame:
    """One row per method of the rows of `survey`, in their order.

    Args:
        rows: method, kind, n_images, seed, the measure and selection_seconds.
        reference: Method the others are compared with.
        measure: Of MEASURES.

    Returns:
        method, kind, n_images, n (seeds), the measure's name and half (mean over the seeds and half of its 95 %
        interval), of the difference to the reference, paired over the seeds the method has, difference,
        difference_half, p, p_holm (corrected for all the comparisons in the table) and correlation (NaN for the
        reference itself), selection_seconds (mean). Below three seeds there is no interval and no p: NaN.

    Raises:
        InputError: When a seed of a method lacks the reference, and for a measure that is not in MEASURES.
    """
    one_of("measure", measure, MEASURES)
    out = []
    for method, group in rows.groupby("method", sort=False):
        line = {name: group[name].iloc[0] for name in ("method", "kind", "n_images")}
        mean, half = mean_interval(group[measure])
        line |= {"n": len(group), measure: mean, "half": half}
        against = dict.fromkeys(("difference", "half", "p", "correlation"), np.nan)
        if method != reference:
            same_seeds = rows[rows["method"].isin([method, reference]) & rows["seed"].isin(group["seed"])]
            against = paired(same_seeds, str(method), reference, over=["seed"], value=measure)
        line |= {"difference": against["difference"], "difference_half": against["half"], "p": against["p"]}
        line |= {"p_holm": np.nan, "correlation": against["correlation"]}
        out.append(line | {"selection_seconds": group["selection_seconds"].mean()})
    table = pd.DataFrame(out)
    return table.assign(p_holm=holm(table["p"]))
