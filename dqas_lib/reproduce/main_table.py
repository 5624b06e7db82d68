"""The main table of the reports: every method at every ratio, beside what others published.

Accuracies of two protocols or two machines are not comparable; what a method gains over random selection under the same
protocol is. So each row says that, paired by seed within its own run, and beside it the published gap over its random.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import t

# trainings on photographs as they are: no digits, no long tails
TRAININGS = re.compile(r".*/06_trainings_(?!digits)(?!.*-lt)[^/]*\.csv")
CELL = ["dataset", "ratio", "method"]
ALL = "full"  # the method that is all the images, whatever the ratio of the others


def main_table(profiles: Sequence[Mapping[str, Any]], reports: Path) -> list[dict[str, Any]]:
    """A row per data set, ratio and method, the best first; of several runs the one with most seeds.

    Each has dataset, ratio, method; where it was measured what `minus` random gives, training (mean seconds), selection
    (for all ratios of its run together), profile and run; where it was published: a list of (accuracy, gap, source),
    from the table `08_gaps` of notebook 08.
    """
    listed = [
        (p["profile"], run["name"], reports / name) for p in profiles for run in p["runs"] for name in run["files"]
    ]
    measured: list[dict[str, Any]] = []
    for profile, run, path in listed:
        if TRAININGS.fullmatch(path.as_posix()) and path.is_file():
            trainings = pd.read_csv(path)
            every = trainings.groupby(["method", "network"])
            spent = (every["selection_seconds"].sum() / every["seed"].nunique()).to_dict()
            for row in minus(trainings, "random"):
                row["selection"] = spent[row["method"], row["network"]]
                measured.append({**row, "profile": profile, "run": run})
    cells = {tuple(row[name] for name in CELL): row for row in sorted(measured, key=lambda row: row["seeds"])}
    published = next((path for *_, path in listed if path.name == "08_gaps.csv" and path.is_file()), None)
    for other in pd.read_csv(published).to_dict("records") if published else ():
        key = tuple(other[name] for name in CELL)
        told = other["published (%)"], other["gap (points)"], other["source"]
        cells.setdefault(key, dict(zip(CELL, key, strict=True))).setdefault("published", []).append(told)
    return sorted(cells.values(), key=lambda row: (row["dataset"], row["ratio"], -row.get("accuracy", 0)))


def minus(trainings: pd.DataFrame, other: str) -> Iterator[dict[str, Any]]:
    """Each method at each ratio, with its difference to another method at the same seeds.

    Args:
        trainings: A row per training: dataset, ratio, method, network, seed, accuracy in [0, 1], training_seconds.
        other: The method taken away, at the same ratio; or all the images.

    Returns:
        Of each: dataset, ratio, method, network, seeds, accuracy and training (means); n pairs, their mean difference,
        and half of its 95 % interval by Student's t (NaN below two pairs).
    """
    on = ["dataset", "network", "seed", *(["ratio"] if other != ALL else [])]
    base = trainings.loc[trainings["method"] == other, [*on, "accuracy"]]
    pairs = trainings.merge(base, how="left", on=on, suffixes=("", " of the other"))
    for key, group in pairs.groupby([*CELL, "network"]):
        differences = (group["accuracy"] - group["accuracy of the other"]).dropna()
        yield {
            **dict(zip([*CELL, "network"], key, strict=True)),
            "seeds": len(group),
            "accuracy": group["accuracy"].mean(),
            "training": group["training_seconds"].mean(),
            "n": len(differences),
            "difference": differences.mean(),
            "half": t.ppf(0.975, len(differences) - 1) * differences.sem(),
        }
