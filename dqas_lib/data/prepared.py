"""A prepared data set: one .npz, or a folder of .npy; data/README.md lists the arrays; read with suspicion."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import map_npy, read_npy, read_npz
from dqas_lib.data.image_set import DataSet, ImageSet

NEEDED = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
OPTIONAL = ("train_index", "test_index", "mirror")


def read_prepared(path: Path, name: str) -> DataSet:
    """Read a prepared .npz as the data set `name`; DataError says what is wrong with it.

    path: Of the .npz; or of a folder with an .npy for each array, whose images are mapped into memory, not read.
    """
    arrays = _mapped(path) if path.is_dir() else read_npz(path, only=NEEDED + OPTIONAL)
    missing = [key for key in NEEDED if key not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: a prepared data set holds {', '.join(NEEDED)}")
    names, mirror = arrays["class_names"], arrays.get("mirror", np.array(True))
    if names.dtype.kind != "U" or names.ndim != 1:
        raise DataError(f"{path}: class_names must be a list of strings; got {names.dtype}")
    if not all(names.tolist()):
        raise DataError(f"{path}: class_names must be distinct and not empty; got {str(names.tolist())[:200]}")
    if mirror.shape != () or mirror.dtype.kind != "b":
        raise DataError(f"{path}: mirror must be one truth value; got {mirror.shape} {mirror.dtype}")
    parts = []
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        ids = arrays.get(f"{split}_index", np.arange(labels.size))
        try:
            parts.append(ImageSet(arrays[f"{split}_images"], labels, ids, tuple(names.tolist()), name, bool(mirror)))
        except InputError as error:
            raise DataError(f"{path}, {split} part: {error}") from error
    train, test = parts
    shapes = train.images.shape, test.images.shape
    if shapes[0][1:] != shapes[1][1:] or 0 in shapes[0] + shapes[1]:
        raise DataError(
            f"{path}: training images are {shapes[0]}, test images {shapes[1]}: there must be some of each, of one size"
        )
    check_classes(train.class_counts, train.class_names, str(path))
    return DataSet(name, train, test)


def _mapped(folder: Path) -> dict[str, np.ndarray]:
    files = {name: file for name in NEEDED + OPTIONAL if (file := folder / f"{name}.npy").is_file()}
    return {
        name: map_npy(file) if name.endswith("images") else read_npy(file.read_bytes(), where=str(file))
        for name, file in files.items()
    }


def check_classes(counts: np.ndarray, class_names: Sequence[str], where: str) -> None:
    """DataError that names the classes without a training image, if there are any; counts: (C,)."""
    empty = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if empty or not len(counts):
        names = ", ".join(repr(name) for name in empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise DataError(
            f"{where}: {len(empty)} of {len(counts)} classes have no training image ({names}): "
            "add images or leave the class out of the class names"
        )
