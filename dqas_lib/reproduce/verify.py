"""One's own results against the published ones: value by value, and what may explain a difference.

A value is a number in a table or among those that a notebook reports, or the ids of a selection. It is equal (up to the
last bits of a sum), within the published interval, or outside. The interval is what was published: the number after ±,
or the column `half` beside the mean. In a table with a row per seed it is two standard deviations around the mean of
the published seeds of that setting [ours], from three seeds on. Without an interval every difference is outside.
Figures are made from the tables, so they are not compared; seconds and megabytes are shown beside each other.
"""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dqas_lib.reproduce.folder import finished, place_of
from dqas_lib.reproduce.profiles import Profile
from dqas_lib.reproduce.report import read_provenance

MEASURED = re.compile(r"seconds|minutes|memory|speed", re.IGNORECASE)  # columns that no two runs share
KEYS = ("ratio", "seed", "class", "theta", "budget", "images", "n_images")  # numbers that say which row it is
OF_THE_MEAN = re.compile(r"(.*[._])?(half|p|correlation)")  # within when the mean to their left is
NUMBER = r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?: ± (\d+\.?\d*))?\s*$"
DEVIATIONS = 2.0  # half an interval
RESTORE = "restore it with git checkout"


@dataclass(frozen=True)
class Difference:
    """A value that is not as published."""

    place: str  # the table and its row, in words
    column: str
    own: str
    published: str
    by: float  # own minus published; NaN for texts
    within: bool  # the published interval


@dataclass
class Verdict:
    """What came of the comparison of a profile."""

    profile: str
    values: int = 0
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why something could not be compared
    new: list[str] = field(default_factory=list)  # finished runs of which nothing is published
    causes: dict[str, None] = field(default_factory=dict)  # what was not the same, in order
    measured: list[tuple[str, str, float, float]] = field(default_factory=list)  # table, column, own, published

    @property
    def outside(self) -> int:
        """How many values lie outside the published interval."""
        return sum(not difference.within for difference in self.differences)

    @property
    def as_published(self) -> bool:
        """Whether all was compared and no value lies outside."""
        return self.values > 0 and not self.problems and not self.outside

    @property
    def sentence(self) -> str:
        """The verdict."""
        n = len(self.differences)
        text = f"{self.profile}: {self.values - n:,} of {self.values:,} values as published"
        text += f", {n - self.outside:,} within the interval, {self.outside:,} outside" * bool(n)
        return text + f"; nothing to compare with is published of {', '.join(self.new)}" * bool(self.new)

    @property
    def cause(self) -> str:
        """What may explain the differences."""
        same = "machine, device and versions are as published, so the code or the published table has changed"
        return "; ".join(self.causes) or same


def verify(profile: Profile, own: Path, published: Path, names: Sequence[str] = ()) -> Verdict:
    """Compare the finished runs of a profile with the published ones; names: compare these runs only."""
    verdict, path = Verdict(profile.name), published / f"{profile.name}.json"
    record, runs = read_provenance(path), {run.name: run for run in profile.runs}
    if record is None:
        absent = f"no results of {profile.name} are published in {published}"
        verdict.problems.append(f"{path} is damaged: {RESTORE}" if path.exists() else absent)
    there = {each["name"]: each for each in record["runs"]} if record else {}
    verdict.new = [name for name in names or runs if record and name not in there and finished(own, runs[name])]
    for theirs in (each for name, each in there.items() if not names or name in names):
        run = runs.get(theirs["name"])
        ours = finished(own, run) if run else {}
        if not run or not ours or ours["parameters"] != theirs["parameters"]:
            why = "has other parameters than the published one" if ours else "is not finished"
            verdict.problems.append(f"run {theirs['name']} {why}: not compared")
            continue
        verdict.causes |= dict.fromkeys(_causes(ours, theirs))
        verdict.measured.append((run.name, "seconds", ours["seconds"], theirs["seconds"]))
        _compare(verdict, run.name, *(pd.DataFrame([dict(_leaves(each["values"]))]) for each in (ours, theirs)))
        for name, sha256 in theirs["files"].items():
            if (kind := name.partition("/")[0]) in ("tables", "ids"):
                _compare_files(verdict, place_of(own, run) / kind / Path(name).name, published / name, sha256)
    return verdict


def _compare_files(verdict: Verdict, own: Path, published: Path, sha256: str) -> None:
    try:
        content = published.read_bytes()
        theirs = read_table(published.suffix, content)
    except (OSError, ValueError, EOFError) as error:
        fault = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({' '.join(str(error).split())[:80]})"
        verdict.problems.append(f"the published table {published} is {fault}: {RESTORE}")
        return
    if hashlib.sha256(content).hexdigest() != sha256:
        verdict.problems.append(f"{published} was changed since it was published: {RESTORE}")
    try:
        ours = read_table(own.suffix, own.read_bytes())
    except (OSError, ValueError, EOFError):
        verdict.problems.append(f"{own} is missing or damaged, so it was not compared: run it again with --force")
        return
    name = f"{published.parent.name}/{published.name}"
    if own.suffix != ".npy" or len(ours) != len(theirs):
        _compare(verdict, name, ours, theirs)
        return
    verdict.values += 1  # a selection is one
    if len(rows := np.flatnonzero(ours["id"] != theirs["id"])):
        place = f"{name}, {len(rows):,} of {len(ours):,} ids, first in row {rows[0] + 1}"
        own_id, published_id = (str(each["id"][rows[0]]) for each in (ours, theirs))
        verdict.differences.append(Difference(place, "id", own_id, published_id, np.nan, False))


def read_table(suffix: str, content: bytes) -> pd.DataFrame:
    """A table as texts; of the ids in an .npy a row each. ValueError when it is none."""
    if suffix == ".npy":
        return pd.DataFrame({"id": np.load(io.BytesIO(content), allow_pickle=False).ravel().astype(str)})
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def _compare(verdict: Verdict, table: str, own: Any, published: Any) -> None:
    """Compare two tables of texts (pandas), row by row."""
    if [*own] != [*published] or len(own) != len(published):
        shapes = [f"{len(each)} rows of {', '.join(each)}"[:200] for each in (own, published)]
        verdict.problems.append(f"{table} has {shapes[0]}; published were {shapes[1]}: not compared")
        return
    ours, theirs = ({column: _numbers(each[column]) for column in each} for each in (own, published))
    keys = [column for column in own if column in KEYS or np.isnan(theirs[column][0]).all()]
    telling = [column for column in keys if published[column].nunique() > 1]
    settings = [published[column] for column in keys if column != "seed"]
    means_hold = np.zeros(len(own), dtype=bool)
    for column, beside in zip(own, [*[*own][1:], ""], strict=True):
        (value, own_half), (center, half) = ours[column], theirs[column]
        if MEASURED.search(column):
            verdict.measured.append((table, column, float(np.nansum(value)), float(np.nansum(center))))
            continue
        equal = np.isclose(value, center, rtol=1e-9, atol=1e-12) & ((own_half == half) | np.isnan(half))
        equal |= (own[column] == published[column]).to_numpy()
        verdict.values += int((~np.isnan(center) | ~equal).sum())
        by = value - center
        if beside.endswith("half"):
            half = theirs[beside][0]
        elif "seed" in own and settings and column not in keys:
            groups = pd.Series(center).groupby(settings)
            center = groups.transform("mean").to_numpy()
            half = (DEVIATIONS * groups.transform("std")).where(groups.transform("count") > 2).to_numpy()
        within = means_hold if OF_THE_MEAN.fullmatch(column) else np.abs(value - center) <= half * (1 + 1e-9)
        if not np.isnan(half).all():
            means_hold = equal | within
        for row in np.flatnonzero(~equal):
            where = ", ".join(f"{key} {published[key].iloc[row]}" for key in telling) or f"row {row + 1}"
            cells = own[column].iloc[row], published[column].iloc[row]
            verdict.differences.append(Difference(f"{table}, {where}", column, *cells, by[row], bool(within[row])))


def _numbers(texts: Any) -> np.ndarray:
    """Numbers and the half-widths after their ±, two rows; NaN for other texts."""
    return texts.str.extract(NUMBER).astype(float).to_numpy().T


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The plain values in lists and mappings, as texts, each with the way to it."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if parts is None:
        yield path, str(value)
    for key, part in parts or ():
        yield from _leaves(part, f"{path}.{key}".lstrip("."))


def _causes(here: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[str]:
    """What was not the same when two runs were executed."""
    ours, theirs = ({**run["versions"], **{k: run[k] for k in ("machine", "device")}} for run in (here, run))
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            yield f"{name} {ours.get(name, 'none')} here, {theirs.get(name, 'none')} published"
