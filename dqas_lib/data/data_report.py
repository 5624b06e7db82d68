"""TODO."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from dqas_lib.data.decoding import Fault

# [ours] without a test/ folder a fifth of each class is the test set
TEST_SHARE = 0.2


SPLIT_SEED = 0


# the arrays of a report that have one entry a file
PER_FILE = {
    "files": str,
    "labels": np.int64,
    "test": bool,
    "width": np.int64,
    "height": np.int64,
    "kinds": str,
    "used": bool,
}


@dataclass(frozen=True)
class Finding:
    """One line of a data report: what was found, how often, examples, and what is done about it."""

    what: str
    count: int
    examples: str
    action: str


@dataclass(frozen=True, eq=False)
class DataReport:
    """What lies in a folder of images and what is made of it.

    path: the folder; size, fit, duplicates: as asked for; own_split: whether train/ and test/ were found; class_names;
    files: (N,) image files that can be read, by path relative to `path`; labels: (N,) int64; test: (N,) bool; width,
    height: (N,) int64 pixels, upright; kinds: (N,) format and mode; used: (N,) bool, False for a copy left out; copies:
    groups of files with the same bytes; faults: files that cannot be used, and why; others: number of files that are no
    pictures; outside: number of pictures beside train/ and test/; key: digest of names and contents; prepared: the
    prepared .npz, or None when a class has no training image or the test set is empty.
    """

    path: Path
    size: int
    fit: str
    duplicates: str
    own_split: bool
    class_names: tuple[str, ...]
    files: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    width: np.ndarray
    height: np.ndarray
    kinds: np.ndarray
    used: np.ndarray
    copies: tuple[tuple[str, ...], ...]
    faults: tuple[Fault, ...]
    others: int
    outside: int
    key: str
    prepared: Path | None

    @property
    def counts(self) -> np.ndarray:
        """(2, C) number of training and test images of each class that are used."""
        return np.stack(
            [
                np.bincount(self.labels[self.used & (self.test == part)], minlength=len(self.class_names))
                for part in (False, True)
            ]
        )

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """Every picture that is not in the prepared set, and why."""
        used = dict(zip(self.files.tolist(), self.used.tolist(), strict=True))
        dropped = []
        for group in self.copies:
            kept = [file for file in group if used[file]]
            for file in group:
                if not kept:
                    others = ", ".join(other for other in group if other != file)
                    dropped.append(Fault(file, f"same bytes in several classes (duplicates='drop'): {others}"))
                elif not used[file]:
                    dropped.append(Fault(file, f"same bytes as {kept[0]} (duplicates='drop')"))
        return (*self.faults, *sorted(dropped, key=lambda fault: fault.file))

    def findings(self) -> list[Finding]:
        """The report as a table: one line a kind of finding, those that need no action included."""
        return _findings(self)

    def provenance(self) -> dict[str, Any]:
        """Where the images came from, as plain JSON values: for the manifest of what is made of them."""
        return {
            "source": "folder",
            "folder": self.path.name,
            "contents": self.key,
            "size": self.size,
            "fit": self.fit,
            "duplicates": self.duplicates,
            "split": _split_in_words(self),
            "images": self.counts.sum(axis=1).tolist(),
            "left_out": [{"file": fault.file, "reason": fault.reason} for fault in self.left_out],
            "pillow": PIL.__version__,
        }


def _examples(items: Sequence[str], shown: int = 3) -> str:
    return ", ".join(items[:shown]) + (" ..." if len(items) > shown else "")


def _split_in_words(report: DataReport) -> str:
    if report.own_split:
        return "train/ and test/ as found"
    return f"one tree: {TEST_SHARE:.0%} of each class is the test set, drawn by seed {SPLIT_SEED}"


def _findings(report: DataReport) -> list[Finding]:
    train, test = report.counts
    n_train, n_test = int(train.sum()), int(test.sum())
    rows = [Finding("images used", n_train + n_test, f"{n_train:,} training, {n_test:,} test", _split_in_words(report))]
    order = np.argsort(-train, kind="stable")
    share = train[order[0]] / max(train[order[-1]], 1)
    rows.append(
        Finding(
            "classes",
            len(train),
            f"{report.class_names[order[0]]}: {train[order[0]]:,} ... {report.class_names[order[-1]]}: "
            f"{train[order[-1]]:,} training images",
            f"used as they are (largest to smallest {share:,.1f} : 1)" if train.all() else "the run stops: empty class",
        )
    )
    sides = np.stack([report.width, report.height])
    if len(report.files):
        sizes = (
            f"{sides.min(axis=1)[0]} x {sides.min(axis=1)[1]} ... {sides.max(axis=1)[0]} x {sides.max(axis=1)[1]} px"
        )
        others = int(np.any(sides != report.size, axis=0).sum())
        how = "the middle is kept" if report.fit == "crop" else "the rest is black"
        rows.append(
            Finding("sizes", others, sizes, f"scaled to {report.size} x {report.size} px by {report.fit}: {how}")
        )
        small = np.flatnonzero((sides.min(axis=0) if report.fit == "crop" else sides.max(axis=0)) < report.size)
        rows.append(Finding("smaller than that", len(small), _examples(report.files[small].tolist()), "enlarged"))
        kinds = Counter(report.kinds.tolist()).most_common()
        text = _examples([f"{kind}: {count:,}" for kind, count in kinds], 4)
        rows.append(Finding("formats and modes", len(kinds), text, "decoded to 8-bit RGB, transparency on white"))
    faults = [str(fault) for fault in report.faults]
    rows.append(
        Finding(
            "files that cannot be used",
            len(faults),
            _examples(faults),
            "the run stops; on_error='skip' leaves them out and records them" if faults else "-",
        )
    )
    rows += _findings_of_copies(report)
    if report.own_split:
        rows.append(Finding("pictures beside train/ and test/", report.outside, "", "not used"))
    return [*rows, Finding("other files", report.others, "", "not looked at")]


def _findings_of_copies(report: DataReport) -> list[Finding]:
    label_of = dict(zip(report.files.tolist(), report.labels.tolist(), strict=True))
    test_of = dict(zip(report.files.tolist(), report.test.tolist(), strict=True))
    contradicting = [group for group in report.copies if len({label_of[file] for file in group}) > 1]
    leaking = [group for group in report.copies if len({test_of[file] for file in group}) > 1]
    drop = report.duplicates == "drop"
    kept = "kept; duplicates='drop' leaves out "
    lines = [
        ("exact copies", report.copies, "one of each is kept" if drop else kept + "all but one"),
        ("... in several classes", contradicting, "all are left out" if drop else kept + "all of them"),
        ("... in train and test", leaking, "kept in the test set only" if drop else kept + "the training copy"),
    ]
    return [
        Finding(what, sum(len(group) for group in groups), _examples([" = ".join(group) for group in groups], 2),
                action if groups else "-")
        for what, groups, action in lines
    ]  # fmt: skip
