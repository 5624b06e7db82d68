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

from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.data.splits import stratified


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of one size.

    InputError when shapes, types or ids disagree.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64 in [0, C).
        ids: (N,) int64 or str, unique, stable.
        class_names: C names; name: the data set's.
        mirror: Whether a mirrored image is still of its class; training mirrors images only then (no digits).
        provenance: Where the images came from, files left out included, as plain JSON values.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    name: str = ""
    mirror: bool = True
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _order: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n, n_classes = len(self.images), len(self.class_names)
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise InputError(f"images must be (N, H, W, 3) uint8; got {self.images.shape} {self.images.dtype}")
        if self.labels.shape != (n,) or self.ids.shape != (n,):
            raise InputError(f"{n} images need as many labels and ids; got {self.labels.shape}, {self.ids.shape}")
        if n and not 0 <= self.labels.min() <= self.labels.max() < n_classes:
            raise InputError(f"labels must lie in [0, {n_classes}); got {self.labels.min()} ... {self.labels.max()}")
        order = np.argsort(self.ids, kind="stable")
        if np.any(self.ids[order][1:] == self.ids[order][:-1]):
            raise InputError("ids must be unique: the same id names two images")
        object.__setattr__(self, "_order", order)

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
        return replace(self, images=self.images[positions], labels=self.labels[positions], ids=self.ids[positions])

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
        """SHA-256 (20 hex digits) of pixels, labels, ids and class names: what a cached result was computed on."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        sha = hashlib.sha256()
        for part in (self.images, self.labels):
            sha.update(str(part.shape).encode())
            sha.update(np.ascontiguousarray(part).data)
        sha.update("\0".join([*self.ids.astype(str), *self.class_names, str(self.mirror)]).encode())
        return sha.hexdigest()[:20]


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
