"""Published numbers beside ours: value, source, protocol, and whether the two may be compared.

The numbers stand in published.csv. What is not listed there is not known to us: a table says "not published", never a
guess. Ratios of the literature are *stored* ratios (image ratio x fraction of patches kept); where whole images are
kept, both kinds are the same.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dqas_lib.experiments.statistics import in_points

NOT_PUBLISHED = "not published"
LARGEST_CLASS = 200_000  # images per class at which bins run out of memory, as BGFDQ reports


@dataclass(frozen=True)
class Published:
    """A row of published.csv: a test accuracy, or the cost of one step (`what`), in `unit`.

    Method and network are called as here ("full": all images); None or "": the source does not state it.
    """

    dataset: str  # "not stated" where the source does not say
    method: str
    ratio: float  # of the training set
    what: str
    value: float
    unit: str
    source: str
    whole_images: bool  # nothing but whole images is kept, so that the stored ratio is the image ratio
    network: str
    epochs: int | None
    note: str  # more about the protocol
    hardware: str | None

    def compare_with(self, *, network: str, recipe: str, patches_dropped: bool = False) -> str:
        """Why a result of ours may not be compared with this one; an empty text when it may."""
        reasons = []
        if network != self.network:
            reasons.append(f"network {network}, published {self.network}")
        if recipe != "paper":
            reasons.append(f"recipe {recipe}, not the 200 epochs of 'paper'")
        if self.epochs not in (None, 200):
            reasons.append(f"{self.epochs} epochs there")
        if not self.whole_images and not patches_dropped:
            reasons.append("published at a stored ratio, with patches dropped; ours keeps whole images")
        return "; ".join(reasons)


def _read(row: dict[str, Any]) -> Published:
    row |= {"ratio": float(row["ratio"]), "value": float(row["value"]), "whole_images": row["whole_images"] == "yes"}
    return Published(**row | {"epochs": int(row["epochs"] or 0) or None, "hardware": row["hardware"] or None})


with Path(__file__).with_name("published.csv").open(encoding="utf-8", newline="") as _file:
    _ENTRIES = [_read(row) for row in csv.DictReader(_file)]
ACCURACIES = [entry for entry in _ENTRIES if entry.what == "accuracy"]
COSTS = [entry for entry in _ENTRIES if entry.what != "accuracy"]


def accuracies(dataset: str, method: str, ratio: float) -> list[Published]:
    """What is published of a method at a ratio; an empty list when nothing is known to us."""
    of_method = [entry for entry in ACCURACIES if (entry.dataset, entry.method) == (dataset, method)]
    return [entry for entry in of_method if np.isclose(entry.ratio, ratio, rtol=1e-9, atol=0)]


def costs(dataset: str, method: str) -> list[Published]:
    """What is published of a method's cost on a data set."""
    return [entry for entry in COSTS if (entry.dataset, entry.method) == (dataset, method)]


def beside(summary: pd.DataFrame) -> pd.DataFrame:
    """Our results and the published ones side by side.

    Args:
        summary: A row per cell, with dataset, method, ratio, network, recipe, mean and half (accuracies in [0, 1]).

    Returns:
        A row per published number of a cell, or one that says "not published": ours, published, comparable, source.
    """
    rows = []
    for cell in summary.to_dict("records"):
        key = {name: cell[name] for name in ("dataset", "method", "ratio")}
        key["ours (%)"] = in_points(cell["mean"], cell["half"])
        known = accuracies(cell["dataset"], cell["method"], cell["ratio"])
        for entry in known:
            reason = entry.compare_with(network=cell["network"], recipe=cell["recipe"])
            source = entry.source + (f"; {entry.note}" if entry.note else "")
            comparable = f"no: {reason}" if reason else "yes" + (", epochs there not stated" * (entry.epochs is None))
            rows.append({**key, "published (%)": f"{entry.value:.1f}", "comparable": comparable, "source": source})
        if not known:
            rows.append({**key, "published (%)": NOT_PUBLISHED, "comparable": "-", "source": "-"})
    return pd.DataFrame(rows)


def gaps(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every published accuracy as a gap over random selection *of its own source*: what protocols leave comparable.

    Args:
        pairs: Our paired differences to random: dataset, ratio, method, difference and half (accuracies in [0, 1]).

    Returns:
        A row per published accuracy whose source gives random too: dataset, ratio, method, published (%), random (%),
        gap (points), ours (points; "not measured" where pairs has no such row), source.
    """
    ours = {(row["dataset"], row["method"], round(row["ratio"], 6)): row for row in pairs.to_dict("records")}
    rows = []
    for entry in ACCURACIES:
        of_source = [
            other for other in accuracies(entry.dataset, "random", entry.ratio) if other.source == entry.source
        ]
        if entry.method == "random" or not of_source:
            continue
        own = ours.get((entry.dataset, entry.method, round(entry.ratio, 6)))
        rows.append(
            {
                "dataset": entry.dataset,
                "ratio": entry.ratio,
                "method": entry.method,
                "published (%)": entry.value,
                "random (%)": of_source[0].value,
                "gap (points)": round(entry.value - of_source[0].value, 2),
                "ours (points)": in_points(own["difference"], own["half"], "+.1f") if own else "not measured",
                "source": entry.source,
            }
        )
    return pd.DataFrame(rows)
