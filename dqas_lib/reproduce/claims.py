"""The paper's claims, each answered by the published tables: its results with their intervals, and a verdict.

A verdict is worked out from the intervals alone: supported where all of them lie above 0, contradicted where all lie
below, undecided else. An interval counts only where its p, corrected by Holm for its own table, is below 5 %.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from dqas_lib.reproduce.main_table import minus


@dataclass(frozen=True)
class Claim:
    """A claim, and which rows of which tables answer it.

    Args:
        text: The claim, with its source.
        tables: Regular expression for the table's file name.
        rows: Columns and the values (regular expressions) that they have in the rows that answer.
        label: What a row is about, a format of its columns.
        sign: -1 where the rows say the opposite: a part switched off, minus the method with it.
        minus: Of a table with a row per training: the method whose accuracy at the same seed is taken away.
    """

    text: str
    tables: str
    rows: Mapping[str, str] = field(default_factory=dict)
    label: str = "{ratio}"
    sign: int = 1
    minus: str = ""


@dataclass(frozen=True)
class Answer:
    """What one published run says about a claim; verdict: supported, contradicted or undecided."""

    profile: str
    run: str
    table: str
    results: tuple[str, ...]
    verdict: str


COMPARED = r"06_paired_(?!.*-lt).*"  # of data sets that are not long-tailed
IMBALANCED = r"06_paired_.*-lt.*"
NUMBERS = ("difference", "half", "p_holm", "correlation", "low", "high")
CLAIMS = (
    Claim(
        "Classes differ in sensitivity, and alike whatever shrinks the data [abstract; summary]",
        "01_agreement_.*",
        {"question": "methods"},
        "{method} and {other}",
    ),
    Claim("Compact classes are the stable ones [summary]", "01_agreement_.*", {"question": "spread"}, "{method}"),
    Claim(
        "Class-wise initialization pays [abstract]",
        "09_variants_.*",
        {"variant": "no class-wise initialization"},
        "DQAS with it",
        sign=-1,
    ),
    Claim("Active sampling pays [abstract]", "09_variants_.*", {"variant": "no active sampling"}, "DQAS with it", -1),
    Claim(
        "Bins of reconstructed images (patchify first) are better than those of the originals (last) [abstract]",
        "09_order_pairs_.*",
        label="{method}, {theta} dropped by {drop}",
    ),
    Claim("DQAS is better than DQ [abstract]", COMPARED, {"first": "dqas", "second": "dq"}),
    Claim("DQAS is better than random selection [abstract]", COMPARED, {"first": "dqas", "second": "random"}),
    Claim("DQAS-plus is better than random selection [ours]", COMPARED, {"first": "dqas-plus", "second": "random"}),
    Claim(
        "DQAS loses nothing at 50 % of CIFAR-10, against all the images [summary]",
        "06_trainings_cifar10",
        {"method": "dqas", "ratio": "0[.]5"},
        minus="full",
    ),
    Claim(
        "DQAS-plus loses nothing at 50 % of CIFAR-10, against all the images [ours]",
        "06_trainings_cifar10",
        {"method": "dqas-plus", "ratio": "0[.]5"},
        minus="full",
    ),
    Claim(
        "DQAS serves imbalanced data: it is better than class-balanced random [abstract]",
        IMBALANCED,
        {"first": "dqas(-plus)?", "second": "random, equal"},
        "{first} at {ratio}",
    ),
)


def answers(claim: Claim, profiles: list[dict[str, Any]], reports: Path) -> list[Answer]:
    """What the tables of the published runs say about a claim; none where no published run asks."""
    return [
        Answer(profile["profile"], run["name"], name, tuple(text for text, _ in results), verdict(results))
        for profile in profiles
        for run in profile["runs"]
        for name in run["files"]
        if re.fullmatch(claim.tables + r"\.csv", Path(name).name) and (results := list(_results(claim, reports / name)))
    ]


def verdict(results: list[tuple[str, int]]) -> str:
    """Of results with 1 for an interval above 0, -1 for one below it, 0 for one that holds it."""
    signs = {sign for _, sign in results}
    return "supported" if signs == {1} else "contradicted" if signs == {-1} else "undecided"


def _results(claim: Claim, table: Path) -> Iterator[tuple[str, int]]:
    """Each row that answers in words, and the side of 0 that its interval lies on."""
    if not table.is_file():
        return
    text = table.read_text("utf-8", "replace")
    rows: Iterable[Mapping[str, Any]] = csv.DictReader(text.splitlines())
    if claim.minus:
        rows = ({k: str(v) for k, v in row.items()} for row in minus(pd.read_csv(io.StringIO(text)), claim.minus))
    for row in rows:
        if not all(re.fullmatch(wanted, row.get(column) or "") for column, wanted in claim.rows.items()):
            continue
        numbers = {name: _number(row.get(name)) for name in NUMBERS}
        if "difference" in row:
            value, half = 100 * claim.sign * numbers["difference"], 100 * numbers["half"]
            low, high, text = value - half, value + half, f"{value:+.1f} ± {half:.1f} points, {row['n']} seeds"
        else:
            value, low, high = (claim.sign * numbers[name] for name in ("correlation", "low", "high"))
            text = f"rank correlation {value:+.2f} ({low:+.2f} to {high:+.2f})"
        shares = {name: f"{100 * _number(row.get(name)):g} %" for name in ("ratio", "theta")}
        clear = not numbers["p_holm"] >= 0.05  # NaN: the table says no p
        yield f"{claim.label.format(**{**row, **shares})}: {text}", ((low > 0) - (high < 0)) * clear


def _number(value: str | None) -> float:
    try:
        return float(value or "nan")
    except ValueError:
        return math.nan
