"""Labeled images with stable ids, and the registry of named data sets.

Every image has an id that survives any selection: its position in the official file (digits, CIFAR) or its path in the
archive or folder. Ids travel, positions do not.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.data.splits import stratified

BLOCK = 8192  # images that are counted, or hashed, in one go


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of one size.

    InputError when shapes, types, labels or ids disagree.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) whole numbers in [0, C), kept as int64.
        ids: (N,) whole numbers, kept as int64, or str; unique, stable.
        class_names: C names; name: the data set's.
        mirror: Whether a mirrored image is still of its class; training mirrors images only then (no digits).
        provenance: Where the images came from, files left out included, as plain JSON values.
        soft_labels: (N, C) uint8, a teacher's probabilities in 255ths, that training learns in place of the labels;
            None: it learns the labels.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    name: str = ""
    mirror: bool = True
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    soft_labels: np.ndarray | None = field(default=None, repr=False)
    _order: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        images, names = self.images, self.class_names
        if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            got = f"{images.shape} {images.dtype}" if hasattr(images, "dtype") else type(images).__name__
            raise InputError(f"images must be (N, H, W, 3) uint8; got {got}")
        if not isinstance(names, list | tuple | np.ndarray) or not all(isinstance(name, str) for name in names):
            raise InputError(f"class_names must be C texts; got {str(names)[:200]!r}")
        if len(set(names)) != len(names):
            raise InputError(f"class_names must be distinct; got {str(tuple(names))[:200]}")
        if not isinstance(self.name, str) or not isinstance(self.mirror, bool | np.bool_):
            raise InputError(f"name must be a text and mirror True or False; got {self.name!r} and {self.mirror!r}")
        n, labels, ids = len(images), _plain("labels", self.labels, "iu"), _plain("ids", self.ids, "iuU")
        if labels.shape != (n,) or ids.shape != (n,):
            raise InputError(f"{n} images need as many labels and ids; got {labels.shape}, {ids.shape}")
        if n and not 0 <= labels.min() <= labels.max() < len(names):
            raise InputError(f"labels must lie in [0, {len(names)}); got {labels.min()} ... {labels.max()}")
        if ids.dtype == np.uint64 and n and ids.max() >= 1 << 63:
            raise InputError(f"ids must be below 2^63; got {ids.max()}")
        ids = ids if ids.dtype.kind == "U" else ids.astype(np.int64, copy=False)
        order = np.argsort(ids, kind="stable")
        if np.any(ids[order][1:] == ids[order][:-1]):
            raise InputError(f"ids must be unique; got {ids[order][1:][ids[order][1:] == ids[order][:-1]][0]!r} twice")
        soft = self.soft_labels
        if soft is not None and (np.shape(soft) != (n, len(names)) or getattr(soft, "dtype", None) != np.uint8):
            raise InputError(f"soft_labels must be ({n}, {len(names)}) uint8; got {np.shape(soft)}")
        if soft is not None and not soft.any(axis=1).all():
            raise InputError(f"soft_labels of an image are all 0: {int((~soft.any(axis=1)).sum())} of {n} images")
        checked = {"labels": labels.astype(np.int64, copy=False), "ids": ids, "class_names": tuple(map(str, names))}
        for field_name, value in {**checked, "mirror": bool(self.mirror), "_order": order}.items():
            object.__setattr__(self, field_name, value)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Height of the images in pixels (they are square in every known data set)."""
        return self.images.shape[1]

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of images of each class."""
        return np.bincount(self.labels, minlength=self.n_classes)

    @cached_property
    def level_counts(self) -> np.ndarray:
        """(3, 256) int64 numbers of pixels of each channel that have each level, counted once."""
        counts = np.zeros((3, 256), dtype=np.int64)
        for first in range(0, len(self), BLOCK):
            for channel in range(3):
                levels = torch.from_numpy(self.images[first : first + BLOCK, ..., channel].ravel())
                counts[channel] += torch.bincount(levels, minlength=256).numpy()
        return counts

    def positions(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Positions of the given ids in this set, in the order given; InputError names an id that is not here."""
        if not len(ids):
            return np.zeros(0, dtype=np.int64)
        wanted = np.asarray(ids)
        first = wanted[:1].tolist()[0]
        if (wanted.dtype.kind == "U") != (self.ids.dtype.kind == "U"):
            kind = "strings" if self.ids.dtype.kind == "U" else "whole numbers"
            raise InputError(f"the ids of the data set {self.name!r} are {kind}; got {first!r}")
        if not len(self):
            raise InputError(f"id {first!r} is not in this (empty) set")
        places = np.searchsorted(self.ids, wanted, sorter=self._order)
        positions = self._order[np.minimum(places, len(self) - 1)]
        missing = wanted[self.ids[positions] != wanted][:1].tolist()
        if missing:
            raise InputError(f"id {missing[0]!r} is not in the data set {self.name!r} ({len(self)} images)")
        return positions

    def take(self, positions: np.ndarray) -> "ImageSet":
        """The images at these positions, in this order."""
        soft = None if self.soft_labels is None else self.soft_labels[positions]
        parts = {name: getattr(self, name)[positions] for name in ("images", "labels", "ids")}
        return replace(self, **parts, soft_labels=soft)

    def select(self, ids: Sequence[Any] | np.ndarray) -> "ImageSet":
        """The images with these ids, in this order."""
        return self.take(self.positions(ids))

    def with_images(self, images: np.ndarray) -> "ImageSet":
        """The same samples (ids, labels) with other pixels, e.g. reconstructed ones."""
        return replace(self, images=images)

    def hold_out(self, fraction: float, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(rest, validation), stratified: each class gives round(fraction * n_c) images, drawn by `seed`.

        A class keeps at least one image in the rest, and gives at least one when it has two or more.
        """
        validation = stratified(self.labels, self.ids, fraction, seed)
        return self.take(np.flatnonzero(~validation)), self.take(np.flatnonzero(validation))

    def fingerprint(self) -> str:
        """SHA-256 (20 hex digits) of pixels, labels (soft ones, too), ids and class names: what a result stands on."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        sha = hashlib.sha256()
        for part in (self.images, self.labels, *(() if self.soft_labels is None else (self.soft_labels,))):
            sha.update(str(part.shape).encode())
            for first in range(0, len(part), BLOCK):
                sha.update(np.ascontiguousarray(part[first : first + BLOCK]).data)
        sha.update("\0".join([*self.ids.astype(str), *self.class_names, str(self.mirror)]).encode())
        return sha.hexdigest()[:20]


def _plain(what: str, values: Any, kinds: str) -> np.ndarray:
    """Labels or ids as an array of one of these kinds, whatever they come in: a list, a column of a table."""
    try:
        array = np.asarray(values)
        if array.dtype == object and all(isinstance(value, str) for value in array.flat):
            array = array.astype(str)
    except (TypeError, ValueError):  # lists of unequal lengths
        array = np.array(values, dtype=object)
    if not array.size:
        array = array.astype(array.dtype if array.dtype.kind in kinds else np.int64)
    if array.dtype.kind not in kinds:
        texts = " or strings" if "U" in kinds else ""
        raise InputError(
            f"{what} must be whole numbers{texts}, one per image; got {array.shape} {array.dtype}: {str(values)[:60]}"
        )
    return array


@dataclass(frozen=True, eq=False)
class DataSet:
    """A training and a test set of one name. The test set is for the final evaluation only."""

    name: str
    train: ImageSet
    test: ImageSet


class NamedDataSet(Protocol):
    """What `load_images` knows by name; `@DATA_SETS.register` adds an object or a class of this kind."""

    name: str

    def load(self, root: Path, progress: bool) -> DataSet:
        """The data set. root: the folder where prepared sets and downloads live; progress: whether to show bars."""
        ...


DATA_SETS: Registry[Any] = Registry("data set")
