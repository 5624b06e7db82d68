"""Data sets: a name, a prepared .npz or a folder -> uint8 images, labels, stable ids, class names.

Known names: "digits" (scikit-learn's, embedded), "cifar10", "cifar100", "tiny-imagenet" (official archives, checked by
SHA-256). Every image has an id that survives any selection: its position in the official file (digits, CIFAR) or its
path in the archive or folder. Ids travel, positions do not.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import read_npz
from dqas_lib.core.store import default_root
from dqas_lib.data.data_report import DataReport
from dqas_lib.data.folders import examine_folder
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.data.official import OFFICIAL, prepare_official, refuse_faults

ON_ERROR = ("stop", "skip")


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
    """Load a data set.

    source: "digits", "cifar10", "cifar100", "tiny-imagenet", a prepared .npz (data/README.md gives its arrays), or a
    folder with one folder a class, or with train/ and test/ of that kind.
    root: where prepared sets and downloads live (default: data/).
    The rest is for a folder of one's own; other sources stay as they are. size: side in pixels (default: the files'
    common size, or 64); fit: "crop" keeps the middle square, "pad" the whole picture on black; on_error: "stop" raises
    DataError with a list of every file that cannot be used, "skip" leaves them out and records them in `provenance`;
    duplicates: files with the same bytes: "keep", or "drop" all but one (all, where their classes contradict);
    mirror: False where a mirrored image is none of its class (digits, writing, road signs).
    Without a test/ folder a fifth of each class, drawn by seed 0, is the test set.
    Raises InputError for an unknown source or option, DataError for missing, damaged or inconsistent data.
    """
    root = Path(root) if root is not None else default_root()
    name = str(source)
    if on_error not in ON_ERROR:
        raise InputError(f"on_error is one of {', '.join(ON_ERROR)}; got {on_error!r}")
    if name == "digits":
        return _digits()
    if name in OFFICIAL:
        return _prepared(prepare_official(name, root, progress=progress), name)
    path = _existing(name)
    if path.suffix == ".npz" and not path.is_dir():
        if not path.is_file():
            raise DataError(f"no prepared data set at {path}: give the path of an existing .npz")
        return _prepared(path, path.stem)
    if path.is_dir():
        found = _folder(path, root, size=size, fit=fit, on_error=on_error, duplicates=duplicates, progress=progress)
        sides = [replace(side, mirror=bool(mirror)) for side in (found.train, found.test)]
        return DataSet(found.name, *sides)
    known = ", ".join(["digits", *OFFICIAL])
    raise InputError(f"unknown data set {name!r}: give one of {known}, a prepared .npz, or an existing folder")


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

    Nothing is decoded twice: `load_images` with the same arguments uses what was found here.
    Raises InputError for an option that cannot be used or a path that is no folder.
    """
    path = _existing(str(path))
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is no folder: a data report is made of a folder of images")
    root = Path(root) if root is not None else default_root()
    return examine_folder(path, root, size=size, fit=fit, duplicates=duplicates, progress=progress)


def _existing(name: str) -> Path:
    """The path of this name; InputError for one that no system could have."""
    path = Path(name)
    try:
        path.exists()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name[:100]!r} is no path ({error.args[-1]}): give a data set, an .npz or a folder"
        ) from error
    return path


def _folder(
    path: Path, root: Path, *, size: int | None, fit: str, on_error: str, duplicates: str, progress: bool
) -> DataSet:
    report = examine_folder(path, root, size=size, fit=fit, duplicates=duplicates, progress=progress)
    if on_error == "stop":
        total = len(report.files) + len(report.faults)
        refuse_faults(list(report.faults), total, str(path), "mend them, or give on_error='skip' to leave them out")
    _check_classes(report.counts[0], report.class_names, str(path))
    if report.prepared is None:
        raise DataError(f"{path}: no image is left for the test set: add images to test/, or more of each class")
    try:
        loaded = _prepared(report.prepared, path.resolve().name)
    except DataError:  # damaged since it was written: made anew from the files
        report.prepared.unlink(missing_ok=True)
        report = examine_folder(path, root, size=size, fit=fit, duplicates=duplicates, progress=progress)
        loaded = _prepared(report.prepared, path.resolve().name)
    provenance = report.provenance()
    return DataSet(
        loaded.name,
        train=replace(loaded.train, provenance=provenance),
        test=replace(loaded.test, provenance=provenance),
    )


def _digits() -> DataSet:
    """scikit-learn's 1,797 digits, 8 x 8 gray in 17 steps, as 3-channel uint8; 1,200 train, 597 test, stratified."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    gray = np.round(raw.images * (255 / 16)).astype(np.uint8)
    whole = ImageSet(
        images=np.repeat(gray[..., None], 3, axis=3),
        labels=raw.target.astype(np.int64),
        ids=np.arange(len(gray), dtype=np.int64),
        class_names=tuple(str(label) for label in raw.target_names),
        name="digits",
        mirror=False,
    )
    rest, test = whole.hold_out(597 / 1797, seed=0)
    return DataSet("digits", train=rest, test=test)


NEEDED = ("train_images", "train_labels", "test_images", "test_labels", "class_names")


OPTIONAL = ("train_index", "test_index", "mirror")


def _prepared(path: Path, name: str) -> DataSet:
    """Read a prepared .npz; DataError names what is wrong with it."""
    arrays = read_npz(path, only=NEEDED + OPTIONAL)
    missing = [key for key in NEEDED if key not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: a prepared data set holds {', '.join(NEEDED)}")
    if arrays["class_names"].dtype.kind != "U" or arrays["class_names"].ndim != 1:
        raise DataError(f"{path}: class_names must be a list of strings; got {arrays['class_names'].dtype}")
    class_names = tuple(_texts(arrays["class_names"], f"{path}: class_names"))
    if len(set(class_names)) != len(class_names) or not all(class_names):
        raise DataError(f"{path}: class_names must be distinct and not empty; got {str(class_names)[:200]}")
    mirror = arrays.get("mirror", np.array(True))
    if mirror.shape != () or mirror.dtype.kind != "b":
        raise DataError(f"{path}: mirror must be one truth value; got {mirror.shape} {mirror.dtype}")
    sets = {}
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(
                f"{path}: {split}_labels must be whole numbers, one an image; got {labels.shape} {labels.dtype}"
            )
        ids = arrays.get(f"{split}_index", np.arange(len(labels), dtype=np.int64))
        if ids.dtype.kind not in "iuU":
            raise DataError(f"{path}: {split}_index must be whole numbers or strings; got {ids.dtype}")
        if ids.dtype.kind == "U":
            _texts(ids.ravel(), f"{path}: {split}_index")
        try:
            sets[split] = ImageSet(
                images=arrays[f"{split}_images"],
                labels=labels.astype(np.int64),
                ids=ids if ids.dtype.kind == "U" else ids.astype(np.int64),
                class_names=class_names,
                name=name,
                mirror=bool(mirror),
            )
        except InputError as error:
            raise DataError(f"{path}, {split} part: {error}") from error
    shapes = [sets[split].images.shape for split in ("train", "test")]
    if shapes[0][1:] != shapes[1][1:] or 0 in shapes[0] + shapes[1]:
        raise DataError(
            f"{path}: training images are {shapes[0]}, test images {shapes[1]}: there must be some of each, of one size"
        )
    _check_classes(sets["train"].class_counts, class_names, str(path))
    return DataSet(name, **sets)


def _texts(array: np.ndarray, what: str) -> list[str]:
    """The strings of an array; DataError when some are no Unicode text, as only a damaged file has them."""
    try:
        texts = array.tolist()
        "".join(texts).encode()
    except ValueError as error:
        raise DataError(f"{what} holds what is no Unicode text ({error}): make or fetch the file again") from error
    return texts


def _check_classes(counts: np.ndarray, class_names: Sequence[str], where: str) -> None:
    empty = [class_names[label] for label in np.flatnonzero(counts == 0)]
    if empty or not len(counts):
        names = ", ".join(repr(name) for name in empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise DataError(
            f"{where}: {len(empty)} of {len(counts)} classes have no training image ({names}): "
            "add images or leave the class out of the class names"
        )


def limited(data: DataSet, per_class: int) -> DataSet:
    """The data set with only the first `per_class` training images of each class, by id; 0 keeps all.

    The smaller set is named after its size ("cifar10-1000"), so that its results are never taken for the full set's.
    """
    if per_class < 0:
        raise InputError(f"per_class must be >= 0 (0 keeps all images); got {per_class!r}")
    if not per_class:
        return data
    order = np.argsort(data.train.ids, kind="stable")
    members = [order[data.train.labels[order] == label][:per_class] for label in range(data.train.n_classes)]
    train_part = data.train.take(np.sort(np.concatenate(members)))
    return DataSet(f"{data.name}-{per_class}", train=train_part, test=data.test)
