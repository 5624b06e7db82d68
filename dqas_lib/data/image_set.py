"""TODO."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.data.splits import stratified


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images of one size.

    images: (N, H, W, 3) uint8; labels: (N,) int64 in [0, C); ids: (N,) int64 or str, unique, stable;
    class_names: C names; name: the data set's; mirror: whether a mirrored image is still of its class (training
    augments with mirror images only then: a mirrored digit is no digit); provenance: where the images came from, files
    left out included, as plain JSON values.
    Raises InputError when shapes, types or ids disagree.
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
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise InputError(f"images must be (N, H, W, 3) uint8; got {self.images.shape} {self.images.dtype}")
        if self.labels.shape != (len(self.images),) or self.ids.shape != (len(self.images),):
            raise InputError(
                f"{len(self.images)} images need as many labels and ids; got {self.labels.shape}, {self.ids.shape}"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise InputError(
                f"labels must lie in [0, {len(self.class_names)}); got {self.labels.min()} ... {self.labels.max()}"
            )
        order = np.argsort(self.ids, kind="stable")
        if np.any(self.ids[order][1:] == self.ids[order][:-1]):
            raise InputError("ids must be unique: the same id names two images")
        object.__setattr__(self, "_order", order)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Height of the images in pixels (they are square in every known data set)."""
        return self.images.shape[1]

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of images of each class."""
        return np.bincount(self.labels, minlength=self.n_classes)

    def positions(self, ids: Sequence | np.ndarray) -> np.ndarray:
        """Positions of the given ids in this set, in the order given; InputError names an id that is not here."""
        wanted = np.asarray(ids, dtype=self.ids.dtype if len(ids) == 0 else None)
        if len(wanted) and (wanted.dtype.kind == "U") != (self.ids.dtype.kind == "U"):
            kind = "strings" if self.ids.dtype.kind == "U" else "whole numbers"
            raise InputError(f"the ids of the data set {self.name!r} are {kind}; got {wanted[:1].tolist()[0]!r}")
        if not len(self) and len(wanted):
            raise InputError(f"id {wanted[:1].tolist()[0]!r} is not in this (empty) set")
        if not len(wanted):
            return np.zeros(0, dtype=np.int64)
        places = np.searchsorted(self.ids, wanted, sorter=self._order)
        found = self._order[np.minimum(places, len(self) - 1)]
        if not np.array_equal(self.ids[found], wanted):
            missing = wanted[self.ids[found] != wanted][:1].tolist()[0]
            raise InputError(f"id {missing!r} is not in the data set {self.name!r} ({len(self)} images)")
        return found

    def take(self, positions: np.ndarray) -> "ImageSet":
        """The images at these positions, in this order."""
        return replace(self, images=self.images[positions], labels=self.labels[positions], ids=self.ids[positions])

    def select(self, ids: Sequence | np.ndarray) -> "ImageSet":
        """The images with these ids, in this order."""
        return self.take(self.positions(ids))

    def with_images(self, images: np.ndarray) -> "ImageSet":
        """The same samples (ids, labels) with other pixels, e.g. reconstructed ones."""
        return replace(self, images=images)

    def hold_out(self, fraction: float, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(rest, held out), stratified: each class gives round(fraction * n_c) images, drawn by `seed`.

        A class keeps at least one image in the rest, and gives at least one when it has two or more.
        """
        held = stratified(self.labels, self.ids, fraction, seed)
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))

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
