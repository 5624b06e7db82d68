"""The main table of the reports: every method at every ratio, beside what others published.

Accuracies of two protocols or two machines are not comparable; what a method gains over random selection under the same
protocol is. So each row says that, paired by seed within its own run, and beside it the published gap over its random.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

# trainings on photographs as they are: no digits, no long tails
TRAININGS = re.compile(r".*/06_trainings_(?!digits)(?!.*-lt)[^/]*\.csv")
CELL = ["dataset", "ratio", "method"]


def main_table(profiles: Sequence[Mapping[str, Any]], reports: Path) -> list[dict[str, Any]]:
    """A row per data set, ratio and method, the best first; of several runs the one with most seeds.

    Each has dataset, ratio, method; where it was measured accuracy (%), network, n, training (mean seconds), selection
    (for all ratios of its run together), gap and half (points over random; NaN for random itself), profile and run;
    where it was published: a list of (accuracy, gap, source), from the table `08_gaps` of notebook 08.
    """
    listed = [(p["profile"], run["name"], name) for p in profiles for run in p["runs"] for name in run["files"]]
    there = [(*at, reports / name) for *at, name in listed if (reports / name).is_file()]
    measured = [row for *at, path in there if TRAININGS.fullmatch(path.as_posix()) for row in _rows(path, *at)]
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(measured, key=lambda row: row["n"]):
        cells[tuple(row[name] for name in CELL)] = row
    published = next((pd.read_csv(path) for *_, path in there if path.name == "08_gaps.csv"), pd.DataFrame())
    for other in published.to_dict("records"):
        key = tuple(other[name] for name in CELL)
        row = cells.setdefault(key, dict(zip(CELL, key, strict=True)))
        told = other["published (%)"], other["gap (points)"], other["source"]
        row.setdefault("published", []).append(told)
    order = {name: place for place, name in enumerate(sorted({key[0] for key in cells}, key=len))}
    return sorted(cells.values(), key=lambda row: (order[row["dataset"]], row["ratio"], -row.get("accuracy", 0)))


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences, and half of its 95 % interval by Student's t; NaN for a single one."""
    n = len(differences)
    return float(np.mean(differences)), float(
        t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / n**0.5
    ) if n > 1 else np.nan


def _rows(path: Path, profile: str, run: str) -> Iterator[dict[str, Any]]:
    """What one run's trainings say of each method at each ratio."""
    table = pd.read_csv(path)
    spent = (
        table.groupby(["method", "network", "seed"])["selection_seconds"].sum().groupby(level=[0, 1]).mean().to_dict()
    )
    random = table[table["method"] == "random"].set_index([*CELL[:2], "network", "seed"])["accuracy"]
    for (*key, network), group in table.groupby([*CELL, "network"]):
        cell, n = dict(zip(CELL, key, strict=True)), len(group)
        places = [(cell["dataset"], cell["ratio"], network, seed) for seed in group["seed"]]
        gap = 100 * (group["accuracy"].to_numpy() - random.reindex(places).to_numpy())
        gap, half = interval(gap) if cell["method"] != "random" else (np.nan, np.nan)
        yield {
            **cell,
            "accuracy": 100 * group["accuracy"].mean(),
            "network": network,
            "n": n,
            "selection": spent[cell["method"], network],
            "training": group["training_seconds"].mean(),
            "gap": gap,
            "half": half,
            "profile": profile,
            "run": run,
        }
