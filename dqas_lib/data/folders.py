"""A folder of one's own images -> a data report and a prepared data set, kept under data/folders/ by contents.

One pass over the files finds everything that may be wrong with them; what is wrong is listed, never passed over. The
prepared set is named by a digest of all file names and contents: a changed, added or removed file makes a new one, and
an unchanged folder is decoded once.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image
from tqdm.auto import tqdm

from dqas_lib.core.digests import LIBRARY, canonical, code_digest, digest
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import write_atomically, write_npz, writing_atomically
from dqas_lib.data.data_report import PER_FILE, SPLIT_SEED, TEST_SHARE, DataReport
from dqas_lib.data.decoding import CHUNK, FITS, FORMATS, Fault, decode_all, in_threads
from dqas_lib.data.splits import stratified

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"}


# pictures all the same, which would be missed in silence if they counted as "other files"
UNREAD = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff"}


UNREAD |= {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"}


DUPLICATES = ("keep", "drop")


DEFAULT_SIZE = 64


def examine_folder(
    path: Path, root: Path, *, size: int | None, fit: str, duplicates: str, progress: bool
) -> DataReport:
    """Look at every file of a folder, write the prepared set, and report; a folder seen before is only hashed.

    path: a folder of class folders, or of train/ and test/ with those; root: the data folder. Unreadable files are
    reported, not raised. Raises InputError for an option that cannot be used, DataError for a folder without classes.
    """
    check_options(size, fit, duplicates)
    listing = _list(path)
    size = size or _common_size(path, listing)
    hashes, unopened = _hashes(path, listing, progress=progress)
    settings = {"size": size, "fit": fit, "duplicates": duplicates, "own_split": listing.own_split}
    contents = {"files": hashes, "classes": listing.classes, "faults": [str(fault) for fault in listing.faults]}
    code = code_digest([LIBRARY / "decoding.py", LIBRARY / "folders.py", LIBRARY / "splits.py"])
    key = digest(code, PIL.__version__, canonical(settings), canonical(contents))
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.resolve().name).strip("-") or "folder"
    prepared = root / "folders" / f"{name}-{size}px-{key}.npz"
    found = _remembered(path, prepared, key, settings)
    if found is not None:
        return found
    report, images = _decode(path, listing, hashes, unopened, key, settings, progress=progress)
    if not (report.counts[0] > 0).all() or not report.counts[1].any():
        return report
    return _remember(report, images, prepared)


def check_options(size: int | None, fit: str, duplicates: str) -> None:
    """Raise InputError unless these can be used."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if size is not None and not (whole and 2 <= size <= 4096):
        raise InputError(f"size is the side in pixels, a whole number from 2 to 4,096; got {size!r}")
    if fit not in FITS:
        raise InputError(f"fit is one of {', '.join(FITS)}; got {fit!r}")
    if duplicates not in DUPLICATES:
        raise InputError(f"duplicates is one of {', '.join(DUPLICATES)}; got {duplicates!r}")


@dataclass(frozen=True)
class _Listing:
    """Image files in the order train, test, each by path; labels and split of each; what cannot be used."""

    own_split: bool
    classes: list[str]
    files: list[str]
    labels: list[int]
    test: list[bool]
    faults: list[Fault]
    others: int
    outside: int


def _class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, hidden ones left out; DataError for one that is no UTF-8."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not _hidden(entry.name))
    for name in names:
        if not _is_text(name):
            raise DataError(f"{folder}: the folder name {os.fsencode(name)!r} is no UTF-8: rename it")
    return names


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list(path: Path) -> _Listing:
    try:
        own_split = (path / "train").is_dir() and bool(_class_folders(path / "train"))
        if own_split and not (path / "test").is_dir():
            raise DataError(f"{path} has train/ but no test/: add test/, or put the class folders directly into {path}")
        base = path / "train" if own_split else path
        classes = _class_folders(base)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): make it readable") from error
    if not classes:
        raise DataError(f"{base} has no class folders: it needs one folder a class, with images in it")
    label_of = {name: label for label, name in enumerate(classes)}
    files: list[str] = []
    labels: list[int] = []
    tests: list[bool] = []
    faults: list[Fault] = []
    others = 0
    for test, part in enumerate(["train", "test"] if own_split else [""]):
        for relative in sorted(_files(path / part, faults)):
            name = f"{part}/{relative}" if part else relative
            folder, _, rest = relative.partition("/")
            verdict = _verdict(path / name)
            if verdict is None:
                others += 1
            elif verdict:
                faults.append(_fault(name, verdict))
            elif not rest:
                faults.append(Fault(name, "lies in no class folder, so it has no label: move it into one"))
            elif folder not in label_of:
                faults.append(Fault(name, f"is of class {folder!r}, which has no folder in train/: add one"))
            else:
                files.append(name)
                labels.append(label_of[folder])
                tests.append(bool(test))
    outside = 0
    if own_split:
        verdicts = [_verdict(path / name) for name in _files(path, faults, skip=("train", "test"))]
        outside = sum(verdict is not None for verdict in verdicts)
        others += len(verdicts) - outside
    return _Listing(own_split, classes, files, labels, tests, faults, others, outside)


def _files(folder: Path, faults: list[Fault], skip: tuple[str, ...] = ()) -> Iterator[str]:
    """Files below a folder, by relative path with "/"; hidden folders and those of `skip` at the top are passed over.

    A class folder may be a link; links to folders further down are not followed (they may lead in circles): they, and
    folders that cannot be opened, are added to `faults`.
    """

    def closed(error: OSError) -> None:
        faults.append(_fault(os.path.relpath(error.filename, folder) + "/", f"cannot be opened ({error.strerror})"))

    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_dir():
                yield entry.name
            elif not _hidden(entry.name) and entry.name not in skip:
                for here, folders, files in os.walk(entry.path, onerror=closed):
                    inside = os.path.relpath(here, folder).replace(os.sep, "/")
                    folders[:] = sorted(name for name in folders if not _hidden(name))
                    for name in folders:
                        if os.path.islink(os.path.join(here, name)):
                            faults.append(_fault(f"{inside}/{name}/", "is a link to a folder, which is not followed"))
                    yield from (f"{inside}/{name}" for name in files)


def _fault(name: str, reason: str) -> Fault:
    """A fault of a file whose name may be no text."""
    return Fault(os.fsencode(name).decode(errors="backslashreplace"), reason)


def _verdict(path: Path) -> str | None:
    """None: no picture; "": a picture; else what is wrong with the file."""
    suffix = path.suffix.lower()
    if path.name.startswith(".") or suffix not in SUFFIXES | UNREAD:
        return None
    if suffix in UNREAD:
        return f"{suffix} pictures are not read: convert it to {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    if not _is_text(path.name):
        return "its name is no UTF-8: rename it"
    if not path.is_file():
        return "is a broken link" if path.is_symlink() else "is no regular file"
    return ""


def _common_size(path: Path, listing: _Listing) -> int:
    """The side of the first training image of each class if all are equal squares, else 64."""
    first = dict(reversed(list(zip(listing.labels, listing.files, strict=True))))
    sizes = set()
    for name in first.values():
        try:
            with Image.open(path / name, formats=FORMATS) as image:
                sizes.add(image.size)
        except Exception:  # reported when it is decoded
            continue
    width, height = sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, 0)
    return width if width == height and 2 <= width <= 4096 else DEFAULT_SIZE


def _hashes(path: Path, listing: _Listing, *, progress: bool) -> tuple[list[tuple[str, str]], dict[str, Fault]]:
    """(name, SHA-256) of each file, and the files that cannot be opened (their SHA-256 is "")."""

    def some(start: int) -> list[tuple[str, str | Fault]]:
        return [one(name) for name in listing.files[start : start + CHUNK]]

    def one(name: str) -> tuple[str, str | Fault]:
        try:
            with open(path / name, "rb") as file:
                return name, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return name, Fault(name, f"cannot be opened ({error.strerror or error})")

    found: list[tuple[str, str]] = []
    faults: dict[str, Fault] = {}
    label = f"{path.name}: looking for changes"
    with tqdm(total=len(listing.files), desc=label, unit="file", disable=not progress) as bar:
        for part in in_threads(some, range(0, len(listing.files), CHUNK)):
            for name, result in part:
                if isinstance(result, Fault):
                    faults[name] = result
                found.append((name, "" if isinstance(result, Fault) else result))
            bar.update(len(part))
    return found, faults


def _decode(
    path: Path,
    listing: _Listing,
    hashes: Sequence[tuple[str, str]],
    unopened: dict[str, Fault],
    key: str,
    settings: dict[str, Any],
    *,
    progress: bool,
) -> tuple[DataReport, np.ndarray]:
    """The report, and the images of the prepared set: those of training, then those of the test."""
    names = listing.files
    images, known = decode_all(
        names,
        lambda name: (path / name).open("rb"),
        size=settings["size"],
        fit=settings["fit"],
        progress=progress,
        label=f"{path.name}: reading",
    )
    read = np.array([not isinstance(item, Fault) for item in known], dtype=bool)
    faults = [*listing.faults, *(unopened.get(item.file, item) for item in known if isinstance(item, Fault))]
    places = np.flatnonzero(read)
    files = np.array(names, dtype=str)[places] if len(names) else np.zeros(0, dtype="U1")
    labels = np.array(listing.labels, dtype=np.int64)[places]
    test = np.array(listing.test, dtype=bool)[places]
    groups = _groups([hashes[place][1] for place in places])
    used = np.ones(len(files), dtype=bool)
    if settings["duplicates"] == "drop":
        used = _without_copies(groups, labels, test)
    if not listing.own_split:
        test = _made_split(groups, labels, files, used)
    order = np.concatenate([places[used & ~test], places[used & test]])
    _gather_in_place(images, order)
    report = DataReport(
        path=path,
        **settings,
        class_names=tuple(listing.classes),
        files=files,
        labels=labels,
        test=test,
        width=np.array([known[place].width for place in places], dtype=np.int64),
        height=np.array([known[place].height for place in places], dtype=np.int64),
        kinds=np.array([known[place].kind for place in places], dtype=str),
        used=used,
        copies=tuple(tuple(files[group].tolist()) for group in groups),
        faults=tuple(sorted(faults, key=lambda fault: fault.file)),
        others=listing.others,
        outside=listing.outside,
        key=key,
        prepared=None,
    )
    return report, images[: len(order)]


def _groups(hashes: Sequence[str]) -> list[np.ndarray]:
    """Positions of the files with the same bytes, group by group; files without a copy are in no group."""
    positions: dict[str, list[int]] = {}
    for position, sha256 in enumerate(hashes):
        positions.setdefault(sha256, []).append(position)
    return [np.array(group) for group in positions.values() if len(group) > 1]


def _without_copies(groups: list[np.ndarray], labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(N,) bool: one file of each group of copies, a test image if there is one; none if their classes contradict."""
    used = np.ones(len(labels), dtype=bool)
    for group in groups:
        used[group] = False
        if len(np.unique(labels[group])) == 1:
            used[group[np.argmax(test[group])]] = True
    return used


def _made_split(groups: list[np.ndarray], labels: np.ndarray, files: np.ndarray, used: np.ndarray) -> np.ndarray:
    """(N,) bool: the test images, a fifth of each class.

    Copies of one file fall on one side, so that none leaks; those of several classes fall on the side of training.
    """
    drawn_from = used.copy()
    for group in groups:
        drawn_from[group[1:]] = False
        drawn_from[group[0]] &= len(np.unique(labels[group])) == 1
    candidates = np.flatnonzero(drawn_from)
    test = np.zeros(len(files), dtype=bool)
    test[candidates] = stratified(labels[candidates], files[candidates], TEST_SHARE, SPLIT_SEED)
    for group in groups:
        test[group] = test[group[0]]
    return test


def _gather_in_place(images: np.ndarray, order: np.ndarray) -> None:
    """images[i] = the old images[order[i]] for each i, without a second copy of the images."""
    rest = np.setdiff1d(np.arange(len(images)), order)
    source = np.concatenate([order, rest])
    done = source == np.arange(len(images))
    for start in np.flatnonzero(~done):
        if done[start]:
            continue
        kept = images[start].copy()
        here = start
        while source[here] != start:
            images[here] = images[source[here]]
            done[here] = True
            here = source[here]
        images[here] = kept
        done[here] = True


def _remember(report: DataReport, images: np.ndarray, prepared: Path) -> DataReport:
    """Write the prepared set, then the report beside it; without the report, the set counts as absent."""
    train, test = report.used & ~report.test, report.used & report.test
    n_train = int(train.sum())
    arrays = {
        "train_images": images[:n_train],
        "train_labels": report.labels[train],
        "train_index": report.files[train],
        "test_images": images[n_train:],
        "test_labels": report.labels[test],
        "test_index": report.files[test],
        "class_names": np.array(report.class_names),
    }
    record = {
        "key": report.key,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "class_names": list(report.class_names),
        "others": report.others,
        "outside": report.outside,
        "copies": [list(group) for group in report.copies],
        "faults": [[fault.file, fault.reason] for fault in report.faults],
        "provenance": report.provenance(),
        **{name: getattr(report, name).tolist() for name in PER_FILE},
    }
    try:
        with writing_atomically(prepared) as file:
            write_npz(file, arrays)
        write_atomically(prepared.with_suffix(".json"), json.dumps(record).encode())
    except OSError as error:
        raise DataError(
            f"{prepared} cannot be written ({error.strerror or error}): free {images.nbytes / 1e6:,.0f} MB there, or "
            "set DQAS_DATA to a folder that can be written"
        ) from error
    return replace(report, prepared=prepared)


def _remembered(path: Path, prepared: Path, key: str, settings: dict[str, Any]) -> DataReport | None:
    """The report written beside the prepared set, if both are there and whole."""
    try:
        record = json.loads(prepared.with_suffix(".json").read_bytes())
        per_file = {name: np.array(record[name], dtype=kind) for name, kind in PER_FILE.items()}
        shapes = {array.shape for array in per_file.values()}
        if record["key"] != key or not prepared.is_file() or shapes != {(len(per_file["files"]),)}:
            return None
        return DataReport(
            path=path,
            **settings,
            class_names=tuple(record["class_names"]),
            copies=tuple(tuple(group) for group in record["copies"]),
            faults=tuple(Fault(str(file), str(reason)) for file, reason in record["faults"]),
            others=int(record["others"]),
            outside=int(record["outside"]),
            key=key,
            prepared=prepared,
            **per_file,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
