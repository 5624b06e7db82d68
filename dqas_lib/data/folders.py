"""A folder of one's own images -> a data report and a prepared data set, kept under data/folders/ by contents.

One pass over the files finds everything that may be wrong with them; what is wrong is listed, never passed over. The
prepared set is named by a digest of all file names and contents: a changed, added or removed file makes a new one, and
an unchanged folder is decoded once. What decoding found out about each file is kept in it, beside the images.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL
from PIL import Image

from dqas_lib.core.checks import one_of, whole_number
from dqas_lib.core.digests import LIBRARY, canonical, code_digest, digest
from dqas_lib.core.errors import DataError, reason_of
from dqas_lib.core.files import read_npz, refused_writes, write_npz, writing_atomically
from dqas_lib.data.data_report import SPLIT_SEED, TEST_FRACTION, DataReport
from dqas_lib.data.decoding import FITS, FORMATS, Fault, decode_all, in_threads
from dqas_lib.data.originals import check_room
from dqas_lib.data.splits import stratified

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"}
# pictures all the same, which would be missed in silence if they counted as "other files"
UNREAD = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff"}
UNREAD |= {".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"}
DUPLICATES = ("keep", "drop")
DEFAULT_SIZE, LARGEST_SIZE = 64, 4096
# what is known of each file once it was decoded: upright size in pixels, format and mode, what is wrong with it
FACTS = ("width", "height", "kind", "reason")


def examine_folder(
    path: Path, root: Path, *, size: int | None, fit: str, duplicates: str, progress: bool
) -> DataReport:
    """Look at every file of a folder, write the prepared set, and report; a folder seen before is only hashed.

    path: A folder of class folders, or of train/ and test/ with those; root: the data folder; the rest as in
    `load_images`. Unreadable files are reported; DataError for a folder without classes, InputError for an option.
    """
    size = size if size is None else whole_number("size", size, 2, LARGEST_SIZE)
    one_of("fit", fit, FITS)
    one_of("duplicates", duplicates, DUPLICATES)
    listing = _list(path)
    size = size or _common_size(path, listing)
    hashes = _hashes(path, listing.files, progress=progress)
    settings = {"size": size, "fit": fit, "duplicates": duplicates, "own_split": listing.own_split}
    faults = [str(fault) for fault in listing.faults]
    contents = {"files": [*zip(listing.files, hashes, strict=True)], "classes": listing.classes, "faults": faults}
    code = code_digest(LIBRARY / "data" / f"{part}.py" for part in ("decoding", "folders", "splits"))
    key = digest(code, PIL.__version__, canonical(settings), canonical(contents))
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.resolve().name).strip("-") or "folder"
    prepared = root / "folders" / f"{name}-{size}px-{key}.npz"
    try:
        report = _report(path, listing, hashes, read_npz(prepared, only=FACTS), settings, key)
    except (DataError, KeyError):  # not there, or damaged
        needed = 3 * size * size * len(listing.files)
        check_room(prepared, needed, "free some, or set DQAS_DATA to a folder with more")
        images, facts = _decode(path, listing, hashes, size=size, fit=fit, progress=progress)
        report = _report(path, listing, hashes, facts, settings, key)
        if not report.counts[0].all() or not report.counts[1].any():
            return report
        _write(report, images, facts, prepared)
    return replace(report, prepared=prepared)


@dataclass(frozen=True)
class _Listing:
    """Image files in the order train, test, each by path; labels and split of each; what cannot be used."""

    own_split: bool
    classes: list[str]
    files: list[str]
    labels: np.ndarray
    test: np.ndarray
    faults: list[Fault]
    others: int
    outside: int


def _list(path: Path) -> _Listing:
    try:
        own_split = (path / "train").is_dir() and bool(_class_folders(path / "train"))
        if own_split and not (path / "test").is_dir():
            raise DataError(f"{path} has train/ but no test/: add test/, or put the class folders directly into {path}")
        base = path / "train" if own_split else path
        classes = _class_folders(base)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason_of(error)}): make it readable") from error
    if not classes:
        raise DataError(f"{base} has no class folders: it needs one folder per class, with images in it")
    label_of = {name: label for label, name in enumerate(classes)}
    pictures: list[tuple[str, int, bool]] = []
    faults: list[Fault] = []
    beside = [fault for _, fault in _files(path, skip=("train", "test"))] if own_split else []
    others = beside.count(None)
    for part in ("train/", "test/") if own_split else ("",):
        for relative, fault in sorted(_files(path / part)):
            folder, slash, _ = relative.partition("/")
            if fault == "" and not slash:
                fault = "lies in no class folder, so it has no label: move it into one"
            elif fault == "" and folder not in label_of:
                fault = f"is of class {folder!r}, which has no folder in train/: add one"
            if fault is None:
                others += 1
            elif fault:
                name = os.fsencode(part + relative).decode(errors="backslashreplace")  # it may be no text
                faults.append(Fault(name, fault))
            else:
                pictures.append((part + relative, label_of[folder], part == "test/"))
    files, labels, test = zip(*pictures, strict=True) if pictures else ((), (), ())
    arrays = np.array(labels, dtype=np.int64), np.array(test, dtype=bool)
    return _Listing(own_split, classes, [*files], *arrays, faults, others, len(beside) - beside.count(None))


def _class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, hidden ones left out; DataError for one that is no UTF-8."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry.name))
    for name in names:
        if not _is_text(name):
            raise DataError(f"{folder}: the folder name {os.fsencode(name)!r} is no UTF-8: rename it")
    return names


def _files(folder: Path, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, str | None]]:
    """Files below a folder, by relative path with "/", and `_fault_of` each; hidden folders and `skip` are passed over.

    A class folder may be a link; links to folders further down are not followed (they may lead in circles): they, and
    folders that cannot be opened, are faults.
    """
    closed: list[OSError] = []
    for top in sorted(folder.iterdir()):
        if not top.is_dir():
            yield top.name, _fault_of(top)
        elif not _hidden(top.name) and top.name not in skip:
            for here, folders, files in os.walk(top, onerror=closed.append):
                inside = os.path.relpath(here, folder).replace(os.sep, "/")
                folders[:] = sorted(name for name in folders if not _hidden(name))
                links = [name for name in folders if os.path.islink(os.path.join(here, name))]
                yield from ((f"{inside}/{name}/", "is a link to a folder, which is not followed") for name in links)
                yield from ((f"{inside}/{name}", _fault_of(Path(here, name))) for name in files)
    for error in closed:
        yield os.path.relpath(error.filename, folder) + "/", f"cannot be opened ({error.strerror})"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_text(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _fault_of(path: Path) -> str | None:
    """None: no picture; "": a picture; else what is wrong with the file. A broken link may have been anything."""
    if path.name.startswith("."):
        return None
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"{'is a broken link' if path.is_symlink() else 'cannot be looked at'} ({reason_of(error)})"
    suffix = path.suffix.lower()
    if suffix in UNREAD:
        return f"{suffix} pictures are not read: convert it to {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    if suffix not in SUFFIXES:
        return None
    if not _is_text(path.name):
        return "its name is no UTF-8: rename it"
    return "" if stat.S_ISREG(mode) else "is no regular file"


def _common_size(path: Path, listing: _Listing) -> int:
    """The side of the first training image of each class if all are equal squares, else 64."""
    first = dict(zip(reversed(listing.labels.tolist()), reversed(listing.files), strict=True))
    sizes = set()
    for name in first.values():
        with suppress(Exception), Image.open(path / name, formats=FORMATS) as image:  # reported when it is decoded
            sizes.add(image.size)
    width, height = sizes.pop() if len(sizes) == 1 else (DEFAULT_SIZE, 0)
    return width if width == height and 2 <= width <= LARGEST_SIZE else DEFAULT_SIZE


def _hashes(path: Path, files: list[str], *, progress: bool) -> list[str]:
    """SHA-256 of each file; "" for one that cannot be opened, which is reported when it is decoded."""

    def one(name: str) -> str:
        with suppress(OSError), open(path / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return ""

    return in_threads(one, files, progress=progress, label=f"{path.name}: looking for changes")


def _decode(
    path: Path, listing: _Listing, hashes: list[str], *, size: int, fit: str, progress: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images (N, size, size, 3) uint8 of all files listed, zeros where one cannot be read, and their facts."""
    hash_of, changed = dict(zip(listing.files, hashes, strict=True)), []

    def unchanged(name: str) -> BinaryIO:
        file = (path / name).open("rb")
        if hashlib.file_digest(file, "sha256").hexdigest() != hash_of[name]:
            changed.append(name)
        file.seek(0)
        return file

    label = f"{path.name}: reading"
    images, results = decode_all(listing.files, unchanged, size=size, fit=fit, progress=progress, label=label)
    if changed:
        raise DataError(f"{path / min(changed)} changed while the folder was read: run this again when nothing does")
    rows = [(0, 0, "", item.reason) if isinstance(item, Fault) else (*item[1:], "") for item in results]
    return images, {name: np.array([row[place] for row in rows]) for place, name in enumerate(FACTS)}


def _report(
    path: Path,
    listing: _Listing,
    hashes: list[str],
    facts: Mapping[str, np.ndarray],
    settings: dict[str, Any],
    key: str,
) -> DataReport:
    good = facts["reason"] == ""
    files, labels = np.array(listing.files, dtype=str)[good], listing.labels[good]
    copies, used, test = _copies_and_split(
        np.array(hashes, dtype=str)[good], files, labels, listing.test[good], settings
    )
    faults = [Fault(*pair) for pair in zip(listing.files, facts["reason"].tolist(), strict=True) if pair[1]]
    return DataReport(
        path=path,
        **settings,
        class_names=tuple(listing.classes),
        files=files,
        labels=labels,
        test=test,
        width=facts["width"][good],
        height=facts["height"][good],
        kinds=facts["kind"][good],
        used=used,
        copies=copies,
        faults=tuple(sorted([*listing.faults, *faults], key=lambda fault: fault.file)),
        others=listing.others,
        outside=listing.outside,
        key=key,
        prepared=None,
    )


def _copies_and_split(
    hashes: np.ndarray, files: np.ndarray, labels: np.ndarray, test: np.ndarray, settings: dict[str, Any]
) -> tuple[tuple[tuple[str, ...], ...], np.ndarray, np.ndarray]:
    """Groups of files with the same bytes, (N,) bool which files are used, and (N,) bool the test images.

    Of copies that are dropped one stays, a test image if there is one, and none if their classes contradict. Where the
    test set is drawn, copies of one file fall on one side, so that none leaks: those of several classes into training.
    """
    _, first, group, sizes = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    mixed = np.zeros(len(first), dtype=bool)
    mixed[group[labels != labels[first][group]]] = True
    used = np.ones(len(files), dtype=bool)
    if settings["duplicates"] == "drop":
        stays = first.copy()
        stays[group[test][::-1]] = np.flatnonzero(test)[::-1]
        used[:] = False
        used[stays] = ~mixed
    if not settings["own_split"]:
        drawn_from = np.sort(first[~mixed])
        test = np.zeros(len(files), dtype=bool)
        test[drawn_from] = stratified(labels[drawn_from], files[drawn_from], TEST_FRACTION, SPLIT_SEED)
        test = test[first][group]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    repeated = sorted((rows for rows in members if len(rows) > 1), key=lambda rows: int(rows[0]))
    return tuple(tuple(files[rows].tolist()) for rows in repeated), used, test


def _write(report: DataReport, images: np.ndarray, facts: Mapping[str, np.ndarray], prepared: Path) -> None:
    """Write the prepared set; images: of all files, in the order listed. They are moved about."""
    good = np.flatnonzero(facts["reason"] == "")
    train, test = report.used & ~report.test, report.used & report.test
    test_images = images[good[test]]
    for place, position in enumerate(good[train]):  # in place: there may be no room for two of the training set
        images[place] = images[position]
    arrays = {
        "train_images": images[: train.sum()],
        "train_labels": report.labels[train],
        "train_index": report.files[train],
        "test_images": test_images,
        "test_labels": report.labels[test],
        "test_index": report.files[test],
        "class_names": np.array(report.class_names),
        **facts,
    }
    remedy = f"free {images.nbytes / 1e6:,.0f} MB there, or set DQAS_DATA to a folder that can be written"
    with refused_writes(prepared, remedy), writing_atomically(prepared) as file:
        write_npz(file, arrays)
