"""Stage 1, patches: importance maps, which patches are dropped, and pasting the kept ones back.

Importance is the class activation map of the network's last convolutional stage (Grad-CAM [Selvaraju et al., 2017],
Grad-CAM++ [Chattopadhay et al., 2018; DQ, Section 3.4; paper]). With global average pooling and a linear head the
gradient of class k's score at channel c is W_kc / (h w) everywhere, so neither needs a backward pass: one batched
forward gives map, prediction and features.

Patches are numbered row by row from the top left; G = (size / patch_size)^2 of them cover an image.
"""

from dataclasses import dataclass

import numpy as np

from dqas_lib.core.errors import InputError


def default_patch_size(size: int) -> int:
    """2 for 8 px, 4 for 32 px, 8 for 64 px: the divisor of `size` nearest to size / 8, at least 2 unless size is odd.

    Raises InputError when only the whole image or single pixels would do.
    """
    wanted = max(2.0, size / 8)
    divisors = [d for d in range(2, size) if size % d == 0]
    if not divisors:
        raise InputError(f"images of {size} px cannot be cut into patches: {size} has no divisor; resize the images")
    return min(divisors, key=lambda d: (abs(np.log(d / wanted)), d))


def grid_of(size: int, patch_size: int) -> int:
    """Patches along one side. Raises InputError when the patch size does not divide the image."""
    if isinstance(patch_size, bool) or not isinstance(patch_size, int | np.integer) or not 1 <= patch_size <= size:
        raise InputError(f"patch_size must be a whole number from 1 to the image's {size} px; got {patch_size!r}")
    if size % patch_size:
        known = ", ".join(str(d) for d in range(1, size + 1) if size % d == 0)
        raise InputError(f"patch_size {patch_size} does not divide images of {size} px: give one of {known}")
    return size // int(patch_size)


def check_theta(theta: float) -> float:
    """The share of patches to drop, in [0, 1). Raises InputError for anything else."""
    if isinstance(theta, bool) or not isinstance(theta, int | float | np.integer | np.floating) or not 0 <= theta < 1:
        raise InputError(f"theta is the share of patches to drop, a number in [0, 1); got {theta!r}")
    return float(theta)


def n_dropped(theta: float, n_patches: int) -> int:
    """How many of the patches are dropped: round(theta * G), but one is always kept."""
    return min(round(check_theta(theta) * n_patches), n_patches - 1)


def kept_share(theta: float, size: int, patch_size: int) -> float:
    """Share of an image's patches that is really kept at theta: 1 - round(theta * G) / G."""
    n_patches = grid_of(size, patch_size) ** 2
    return 1 - n_dropped(theta, n_patches) / n_patches


DROPS = ("importance", "importance x error")


def check_drop(drop: str) -> str:
    """The name of a rule that says which patches are dropped. Raises InputError for a name not in DROPS."""
    if drop not in DROPS:
        raise InputError(f"drop is one of {', '.join(DROPS)}; got {drop!r}")
    return drop


def importance_weighted_error(importance: np.ndarray, error: np.ndarray) -> np.ndarray:
    """(N, G) float32 importance x error: what dropping a patch would do, by how wrong it comes back. [ours]

    importance: (N, G) >= 0; error: (N, G) >= 0, of `autoencoder.reconstruction_error`. Importance alone drops whole regions
    that the network does not look at, however rich they are, and what is trained on them later learns their painted
    blur; the product keeps of these what cannot be guessed, and drops of the rest what can. A thousandth of an
    image's mean importance is added, so that patches without any are still ranked by their error.
    """
    floor = 1e-3 * importance.mean(axis=1, keepdims=True)
    return ((importance + np.where(floor > 0, floor, 1.0)) * error).astype(np.float32)


def keep_mask(importance: np.ndarray, theta: float | np.ndarray) -> np.ndarray:
    """(N, G) bool, True where a patch is kept: the round(theta * G) least important of every image are dropped.

    importance: (N, G); theta: one share in [0, 1), or (N,) one for each image. Of equally important patches the lowest
    number is dropped first. At least one patch of an image is kept. Raises InputError for a theta outside [0, 1) or
    importance that is NaN.
    """
    importance = np.asarray(importance)
    if importance.ndim != 2 or np.isnan(importance).any():
        raise InputError(f"importance must be (N, G) numbers without NaN; got shape {importance.shape}")
    n, n_patches = importance.shape
    if np.ndim(theta) == 0:
        dropped = np.full(n, n_dropped(theta, n_patches))
    else:
        theta = np.asarray(theta, dtype=np.float64)
        if theta.shape != (n,) or not ((theta >= 0) & (theta < 1)).all():
            raise InputError(f"theta must be one share in [0, 1), or {n} of them; got shape {theta.shape}")
        dropped = np.minimum(np.round(theta * n_patches).astype(np.int64), n_patches - 1)
    order = np.argsort(importance, axis=1, kind="stable")
    kept = np.empty((n, n_patches), dtype=bool)
    np.put_along_axis(kept, order, np.arange(n_patches) >= dropped[:, None], axis=1)
    return kept


def largest_theta(shifts: np.ndarray, thetas: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(N,) the largest theta of each image whose feature shift, and that of every smaller one, stays within its limit.

    shifts: (T, N) distance between the features of the original and of the reconstruction at thetas[t]; thetas: (T,)
    rising; limits: (N,). 0 where even the smallest shifts too far. [BGFDQ: semantic-offset dropping]
    """
    thetas = np.asarray(thetas, dtype=np.float64)
    if len(thetas) != len(shifts) or (np.diff(thetas) <= 0).any():
        raise InputError(f"thetas must rise, one for each row of shifts; got {thetas.tolist()} for {len(shifts)} rows")
    within = np.logical_and.accumulate(np.asarray(shifts) <= limits, axis=0)
    reached = within.sum(axis=0)
    return np.concatenate([[0.0], thetas])[reached]


def neighbor_distance(features: np.ndarray, labels: np.ndarray, *, block: int = 2048) -> np.ndarray:
    """(C,) mean distance from an image's unit features to those of its nearest neighbor of the same class.

    features: (N, d) unit rows. A class of one image has no neighbor and gets 0. Memory O(block * n_c).
    """
    out = np.zeros(int(labels.max()) + 1 if len(labels) else 0)
    for label in np.unique(labels):
        z = features[labels == label].astype(np.float32)
        if len(z) < 2:
            continue
        nearest = np.empty(len(z))
        for start in range(0, len(z), block):
            cosine = z[start : start + block] @ z.T
            rows = np.arange(len(cosine))
            cosine[rows, start + rows] = -np.inf
            nearest[start : start + block] = cosine.max(axis=1)
        out[label] = np.sqrt(np.maximum(2 - 2 * nearest, 0)).mean()
    return out


def to_patches(images: np.ndarray, patch_size: int) -> np.ndarray:
    """(N, H, W, 3) -> (N, G, patch_size, patch_size, 3), patches row by row."""
    n, size, _, channels = images.shape
    grid = grid_of(size, patch_size)
    cut = images.reshape(n, grid, patch_size, grid, patch_size, channels).swapaxes(2, 3)
    return cut.reshape(n, grid * grid, patch_size, patch_size, channels)


def from_patches(patches: np.ndarray) -> np.ndarray:
    """(N, G, p, p, 3) -> (N, H, W, 3), the inverse of `to_patches`."""
    n, n_patches, patch_size, _, channels = patches.shape
    grid = round(n_patches**0.5)
    joined = patches.reshape(n, grid, grid, patch_size, patch_size, channels).swapaxes(2, 3)
    return joined.reshape(n, grid * patch_size, grid * patch_size, channels)


def pixel_mask(kept: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W) bool from (N, G) bool: True where a pixel belongs to a kept patch."""
    n, n_patches = kept.shape
    grid = round(n_patches**0.5)
    scale = size // grid
    return kept.reshape(n, grid, grid).repeat(scale, axis=1).repeat(scale, axis=2)


def paste(images: np.ndarray, filled: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8: the kept patches of `images`, bit for bit, and `filled` elsewhere."""
    return np.where(pixel_mask(kept, images.shape[1])[..., None], images, filled)


@dataclass(frozen=True)
class AdaptiveTheta:
    """A theta for every image: the largest of `thetas` at which its features shift by no more than `tolerance` times
    the mean distance between nearest neighbors of its class. [BGFDQ: semantic-offset dropping; the grid is ours]"""

    thetas: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5)
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        for theta in self.thetas:
            check_theta(theta)
        if not self.thetas or list(self.thetas) != sorted(set(self.thetas)) or not self.tolerance >= 0:
            raise InputError(
                f"adaptive theta: thetas must rise and tolerance be >= 0; got {self.thetas}, {self.tolerance!r}"
            )
