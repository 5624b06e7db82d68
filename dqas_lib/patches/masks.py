"""Masks: how patches are numbered, cut and joined, and which of them are dropped.

Patches are numbered row by row from the top left; G = (size / patch_size)^2 of them cover an image.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from einops import rearrange, repeat
from torch import Tensor

from dqas_lib.core.checks import check_fields, kinds, number, whole_number
from dqas_lib.core.errors import InputError

Array = TypeVar("Array", np.ndarray, Tensor)
DROPS = ("importance", "importance x error")


@kinds
def default_patch_size(size: int) -> int:
    """2 for 8 px, 4 for 32 px, 8 for 64 px: the divisor of `size` nearest to size / 8; InputError for a prime size."""
    target = max(2.0, size / 8)
    divisors = [d for d in range(2, size) if size % d == 0]
    if not divisors:
        raise InputError(f"images of {size} px cannot be cut into patches: {size} has no divisor; resize the images")
    return min(divisors, key=lambda d: (abs(np.log(d / target)), d))


def grid_of(size: int, patch_size: int) -> int:
    """Patches along one side; InputError when the patch size does not divide the image."""
    patch_size = whole_number("patch_size", patch_size, 1, size)
    if size % patch_size:
        known = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
        raise InputError(f"patch_size {patch_size} does not divide images of {size} px: give one of {known}")
    return size // patch_size


def to_patches(images: Array, patch_size: int) -> Array:
    """(N, H, W, 3) -> (N, G, patch_size, patch_size, 3), patches row by row."""
    grid_of(images.shape[1], patch_size)
    return rearrange(images, "n (i p) (j q) c -> n (i j) p q c", p=patch_size, q=patch_size)


def from_patches(patches: Array) -> Array:
    """(N, G, p, p, 3) -> (N, H, W, 3), the inverse of `to_patches`."""
    return rearrange(patches, "n (i j) p q c -> n (i p) (j q) c", i=round(patches.shape[1] ** 0.5))


def pixel_mask(kept: Array, size: int) -> Array:
    """(N, H, W) bool from (N, G) bool: True where a pixel belongs to a kept patch."""
    grid = round(kept.shape[1] ** 0.5)
    return repeat(kept, "n (i j) -> n (i p) (j q)", i=grid, p=size // grid, q=size // grid)


def paste(images: np.ndarray, filled: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8: the kept patches of `images`, bit for bit, and `filled` elsewhere."""
    return np.where(pixel_mask(kept, images.shape[1])[..., None], images, filled)


def check_theta(theta: Any) -> float:
    """The fraction of patches to drop as a float; InputError unless it is a number in [0, 1)."""
    return number("theta, the fraction of patches to drop,", theta, 0, 1, ends="[)")


def n_dropped(theta: float, n_patches: int) -> int:
    """How many of the patches are dropped: round(theta * G), but one is always kept."""
    return min(round(check_theta(theta) * n_patches), n_patches - 1)


def kept_fraction(theta: float, size: int, patch_size: int) -> float:
    """Fraction of an image's patches that is really kept at theta: 1 - round(theta * G) / G."""
    n_patches = grid_of(size, patch_size) ** 2
    return 1 - n_dropped(theta, n_patches) / n_patches


def importance_weighted_error(importance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(N, G) float32 importance x error: what dropping a patch would do, by how wrong it comes back [ours].

    Importance alone drops whole regions that the network does not look at, however rich, and what is trained on them
    learns their blur. A thousandth of the mean importance is added: patches without any are ranked by their error.
    """
    floor = 1e-3 * importance.mean(axis=1, keepdims=True)
    return ((importance + np.where(floor > 0, floor, 1.0)) * error).astype(np.float32)


def keep_mask(importance: np.ndarray, theta: float | np.ndarray) -> np.ndarray:
    """(N, G) bool, True where a patch is kept: the round(theta * G) least important of every image are dropped.

    Of equally important patches the lowest number is dropped first; one is always kept. theta: one fraction in [0, 1),
    or (N,), one for each image. InputError for others, and for importance that is NaN.
    """
    importance = np.asarray(importance)
    if importance.ndim != 2 or importance.dtype.kind not in "biuf" or np.isnan(importance).any():
        raise InputError(f"importance must be (N, G) numbers without NaN; got shape {importance.shape}")
    n, n_patches = importance.shape
    if np.ndim(theta) == 0:
        dropped = np.full(n, n_dropped(check_theta(theta), n_patches))
    else:
        theta = np.asarray(theta, dtype=np.float64)
        if theta.shape != (n,) or not ((theta >= 0) & (theta < 1)).all():
            raise InputError(f"theta must be one fraction in [0, 1), or {n} of them; got shape {theta.shape}")
        dropped = np.minimum(np.round(theta * n_patches).astype(np.int64), n_patches - 1)
    rank = importance.argsort(axis=1, kind="stable").argsort(axis=1)
    return rank >= dropped[:, None]


@dataclass(frozen=True)
class AdaptiveTheta:
    """A theta for every image, the largest at which its features shift little [BGFDQ: semantic-offset dropping].

    Args:
        thetas: Rising fractions of patches to drop, from which one is taken, or none. [ours]
        tolerance: Features may shift by this times the mean distance between nearest neighbors of the image's class.
    """

    thetas: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5)
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        for theta in self.thetas:
            check_theta(theta)
        if not self.thetas or list(self.thetas) != sorted(set(self.thetas)) or not self.tolerance >= 0:
            raise InputError(
                f"adaptive theta: thetas must rise and tolerance be >= 0; got {self.thetas}, {self.tolerance!r}"
            )


def largest_theta(shifts: np.ndarray, thetas: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(N,) the largest theta whose feature shift, and that of every smaller one, is within the image's limit; else 0.

    shifts: (T, N) distances between features of original and reconstruction at thetas[t]; thetas: (T,) rising;
    limits: (N,). [BGFDQ: semantic-offset dropping]
    """
    within = np.logical_and.accumulate(shifts <= limits, axis=0)
    return np.concatenate([[0.0], thetas])[within.sum(axis=0)]


def neighbor_distance(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C,) mean distance from an image's (N, d) features to those of its nearest neighbor of the class; 0 for one."""
    from sklearn.neighbors import NearestNeighbors  # slow to import

    distances = np.zeros(int(labels.max(initial=-1)) + 1)
    for label in np.flatnonzero(np.bincount(labels) > 1):
        neighbors = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(features[labels == label])
        distances[label] = neighbors.kneighbors()[0].mean()
    return distances
