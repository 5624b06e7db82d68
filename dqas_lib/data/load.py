"""The door to all data: a name, a prepared .npz or a folder -> uint8 images, labels, stable ids, class names."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import dqas_lib.data.official  # noqa: F401 - registers its data sets
from dqas_lib.core.checks import a_path, kinds, nearest, one_of, whole_number
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.store import default_root
from dqas_lib.data.data_report import DataReport
from dqas_lib.data.decoding import refuse_faults
from dqas_lib.data.folders import examine_folder
from dqas_lib.data.image_set import DATA_SETS, DataSet
from dqas_lib.data.prepared import check_classes, read_prepared

ON_ERROR = ("stop", "skip")
REMEDY = "give a data set, an .npz or a folder"


def load_images(
    source: str | Path,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    fit: str = "crop",
    on_error: str = "stop",
    duplicates: str = "keep",
    mirror: bool = True,
    progress: bool = True,
) -> DataSet:
    """Load a data set. All but the first two and the last argument are for a folder of one's own.

    Args:
        source: A name of DATA_SETS ("digits", "cifar10", "cifar100", "tiny-imagenet"), a prepared .npz (data/README.md
            gives its arrays) or a folder with its arrays as .npy files, or a folder with one folder per class, or with
            train/ and test/ of that kind; without test/ a fifth of each class, drawn by seed 0, is the test set.
        root: Where prepared sets and downloads live (default: data/).
        size: Side in pixels (default: the files' common size, or 64).
        fit: "crop" keeps the middle square, "pad" the whole picture on black.
        on_error: "stop" raises DataError with a list of every file that cannot be used, "skip" leaves them out and
            records them in `provenance`.
        duplicates: Files with the same bytes: "keep", or "drop" all but one (all, where their classes contradict).
        mirror: False where a mirrored image is none of its class (digits, writing, road signs).
        progress: Whether to show bars.

    Raises:
        InputError: For an unknown source or option.
        DataError: For missing, damaged or inconsistent data.
    """
    one_of("on_error", on_error, ON_ERROR)
    top = default_root() if root is None else a_path("root", root)
    if isinstance(source, str) and source in DATA_SETS:
        known = DATA_SETS[source]
        return (known() if isinstance(known, type) else known).load(top, progress)
    path = a_path("the source", source, REMEDY)
    if (path / "train_images.npy").is_file():
        return read_prepared(path, path.resolve().name)
    if path.is_dir():
        look = partial(data_report, path, root=top, size=size, fit=fit, duplicates=duplicates, progress=progress)
        return _folder(look, on_error, mirror)
    if path.suffix != ".npz":
        known_ones = f"{', '.join(DATA_SETS)}, a prepared .npz, or an existing folder"
        raise InputError(f"unknown data set {str(source)!r}{nearest(source, DATA_SETS)}: give one of {known_ones}")
    if not path.is_file():
        raise DataError(f"no prepared data set at {path}: give the path of an existing .npz")
    return read_prepared(path, path.stem)


def data_report(
    path: str | Path,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    fit: str = "crop",
    duplicates: str = "keep",
    progress: bool = True,
) -> DataReport:
    """What lies in a folder of one's own and what `load_images` would make of it; arguments as there.

    Nothing is decoded twice: `load_images` with the same arguments uses what was found here. InputError for an option
    that cannot be used or a path that is no folder.
    """
    path = a_path("the path", path, REMEDY)
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is no folder: a data report is made of a folder of images")
    root = default_root() if root is None else a_path("root", root)
    return examine_folder(path, root, size=size, fit=fit, duplicates=duplicates, progress=progress)


def _folder(look: Callable[[], DataReport], on_error: str, mirror: bool) -> DataSet:
    report = look()
    where, name = str(report.path), report.path.resolve().name
    if on_error == "stop":
        total, remedy = len(report.files) + len(report.faults), "mend them, or give on_error='skip' to leave them out"
        refuse_faults(report.faults, total, where, remedy)
    check_classes(report.counts[0], report.class_names, where)
    if report.prepared is None:
        raise DataError(f"{where}: no image is left for the test set: add images to test/, or more of each class")
    try:
        data = read_prepared(report.prepared, name)
    except DataError:  # damaged since it was written: made anew from the files
        report.prepared.unlink(missing_ok=True)
        data = read_prepared(look().prepared or report.prepared, name)
    parts = (replace(part, mirror=bool(mirror), provenance=report.provenance()) for part in (data.train, data.test))
    return DataSet(data.name, *parts)


@kinds
def limited(data: DataSet, per_class: int) -> DataSet:
    """The data set with only the first `per_class` training images of each class, by id; 0 keeps all.

    The smaller set is named after its size ("cifar10-1000"), so that its results are never taken for the full set's.
    """
    if not whole_number("per_class (0 keeps all images)", per_class, 0):
        return data
    order = np.argsort(data.train.ids, kind="stable")
    members = [order[data.train.labels[order] == label][:per_class] for label in range(data.train.n_classes)]
    return DataSet(f"{data.name}-{per_class}", data.train.take(np.sort(np.concatenate(members))), data.test)
