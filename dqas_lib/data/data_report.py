"""The data report: what lies in a folder of images, and what is made of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from dqas_lib.data.decoding import Fault

# [ours] without a test/ folder a fifth of each class is the test set
TEST_FRACTION = 0.2
SPLIT_SEED = 0


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

    Args:
        path: The folder; size, fit, duplicates: as asked for; own_split: whether train/ and test/ were found.
        class_names: C names.
        files: (N,) image files that can be read, by path relative to `path`, with labels (int64), test (bool), upright
            width and height in pixels, kinds (format and mode), and used (False for a copy left out) of each.
        copies: Groups of files with the same bytes.
        faults: Files that cannot be used, and why.
        others: Number of files that are no pictures; outside: of pictures beside train/ and test/.
        key: Digest of names and contents.
        prepared: The prepared .npz, or None when a class has no training image or the test set is empty.
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
        parts = [self.labels[self.used & (self.test == part)] for part in (False, True)]
        return np.stack([np.bincount(labels, minlength=len(self.class_names)) for labels in parts])

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """Every picture that is not in the prepared set, and why."""
        used = set(self.files[self.used].tolist())
        dropped = []
        for group in self.copies:
            kept = [file for file in group if file in used]
            for file in (file for file in group if file not in used):
                others = ", ".join(other for other in group if other != file)
                contradicting = f"same bytes in several classes (duplicates='drop'): {others}"
                dropped.append(Fault(file, f"same bytes as {kept[0]} (duplicates='drop')" if kept else contradicting))
        return (*self.faults, *sorted(dropped, key=lambda fault: fault.file))

    @property
    def split(self) -> str:
        """Where the test set comes from, in words."""
        if self.own_split:
            return "train/ and test/ as found"
        return f"one tree: {TEST_FRACTION:.0%} of each class is the test set, drawn by seed {SPLIT_SEED}"

    def provenance(self) -> dict[str, Any]:
        """Where the images came from, as plain JSON values: for the manifest of what is made of them."""
        sizes = [(self.path / file).stat().st_size for file in self.files[self.used & ~self.test]]
        return {
            "bytes_per_image": sum(sizes) / max(len(sizes), 1),  # of the training files as they lie there
            "source": "folder",
            "folder": self.path.name,
            "contents": self.key,
            "size": self.size,
            "fit": self.fit,
            "duplicates": self.duplicates,
            "split": self.split,
            "images": self.counts.sum(axis=1).tolist(),
            "left_out": [asdict(fault) for fault in self.left_out],
            "pillow": PIL.__version__,
        }

    def findings(self) -> list[Finding]:
        """The report as a table: one line per kind of finding, those that need no action included."""
        train, test = self.counts
        order = np.argsort(-train, kind="stable")
        ends = " ... ".join(f"{self.class_names[label]}: {train[label]:,}" for label in order[[0, -1]])
        spread = f"used as they are (largest to smallest {train.max() / max(train.min(), 1):,.1f} : 1)"
        rows = [
            ("images used", int(self.used.sum()), f"{train.sum():,} training, {test.sum():,} test", self.split),
            ("classes", len(train), f"{ends} training images", spread if train.all() else "the run stops: empty class"),
        ]
        if len(self.files):
            sides = np.stack([self.width, self.height])
            sizes = " ... ".join("{} x {}".format(*end) for end in (sides.min(axis=1), sides.max(axis=1)))
            how = "the middle is kept" if self.fit == "crop" else "the rest is black"
            small = self.files[(sides.min(axis=0) if self.fit == "crop" else sides.max(axis=0)) < self.size].tolist()
            kinds = [f"{kind}: {count:,}" for kind, count in Counter(self.kinds.tolist()).most_common()]
            rows += [
                ("sizes", int(np.any(sides != self.size, axis=0).sum()), f"{sizes} px",
                 f"scaled to {self.size} x {self.size} px by {self.fit}: {how}"),
                ("smaller than that", len(small), _examples(small), "enlarged"),
                ("formats and modes", len(kinds), _examples(kinds, 4), "decoded to 8-bit RGB, transparency on white"),
            ]  # fmt: skip
        action = "the run stops; on_error='skip' leaves them out and records them" if self.faults else "-"
        rows.append(("files that cannot be used", len(self.faults), _examples([*map(str, self.faults)]), action))
        for what, groups, dropped, leaves_out in (
            ("exact copies", self.copies, "one of each is kept", "all but one"),
            ("... in several classes", self._differing(self.labels), "all are left out", "all of them"),
            ("... in train and test", self._differing(self.test), "kept in the test set only", "the training copy"),
        ):
            action = dropped if self.duplicates == "drop" else f"kept; duplicates='drop' leaves out {leaves_out}"
            examples = _examples([" = ".join(group) for group in groups], 2)
            rows.append((what, sum(map(len, groups)), examples, action if groups else "-"))
        if self.own_split:
            rows.append(("pictures beside train/ and test/", self.outside, "", "not used"))
        return [Finding(*row) for row in [*rows, ("other files", self.others, "", "not looked at")]]

    def _differing(self, values: np.ndarray) -> list[tuple[str, ...]]:
        """Groups of copies whose files have different values."""
        value_of = dict(zip(self.files.tolist(), values.tolist(), strict=True))
        return [group for group in self.copies if len({value_of[file] for file in group}) > 1]


def _examples(items: Sequence[str], shown: int = 3) -> str:
    return ", ".join(items[:shown]) + (" ..." if len(items) > shown else "")
