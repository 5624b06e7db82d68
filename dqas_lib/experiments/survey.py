"""Survey: everything registered at one ratio -> tidy rows, and an overview against a reference."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from dqas_lib.core.checks import kinds, one_of
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


@kinds
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
    """
    one_of("measure", measure, MEASURES)
    made = list(MAKERS if others is None else others)
    sources = {**labeled(all_methods() if methods is None else methods), **labeled(made)}
    table = compare(data, sources, [ratio], seeds, setting=setting, workers=workers).rows
    mean = table.groupby("method")[measure].transform("mean")
    return table.iloc[np.lexsort((table["seed"], table["method"], -mean))].reset_index(drop=True)


@kinds
def overview(rows: pd.DataFrame, reference: str = "random", *, measure: str = "accuracy") -> pd.DataFrame:
    """One row per method of the rows of `survey`, in their order; InputError when a seed of one lacks the reference.

    Returns:
        method, kind, n_images, n (seeds), the measure and half (mean and half of its 95 % interval); of the difference
        to the reference, paired over the seeds a method has: difference, difference_half, p, p_holm (corrected for all
        comparisons in the table), correlation (all NaN for the reference itself, interval and p also below three
        seeds); selection_seconds (mean).
    """
    one_of("measure", measure, MEASURES)
    one_of("the reference", reference, rows["method"].unique() if "method" in rows else ())
    out = []
    for method, group in rows.groupby("method", sort=False):
        mean, half = mean_interval(group[measure])
        line = {name: group[name].iloc[0] for name in ("method", "kind", "n_images")}
        line |= {"n": len(group), measure: mean, "half": half}
        pairs = dict.fromkeys(("difference", "half", "p", "correlation"), np.nan)
        if method != reference:
            same_seeds = rows[rows["method"].isin([method, reference]) & rows["seed"].isin(group["seed"])]
            pairs = paired(same_seeds, str(method), reference, over=["seed"], value=measure)
        line |= {"difference": pairs["difference"], "difference_half": pairs["half"], "p": pairs["p"], "p_holm": np.nan}
        line |= {"correlation": pairs["correlation"], "selection_seconds": group["selection_seconds"].mean()}
        out.append(line)
    table = pd.DataFrame(out)
    return table.assign(p_holm=holm(table["p"]))
