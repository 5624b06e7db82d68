"""Near-duplicates: images that differ from an earlier one by little more than encoding, scale or brightness [ours]."""

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from dqas_lib.core.checks import number

COARSE, FINE = 8, 16  # sides of the two thumbnails that are compared
BLOCK = 512  # images compared at a time: memory is BLOCK x N x 4 bytes, 200 MB for 100,000 images


def near_duplicates(images: np.ndarray, threshold: float = 0.97) -> tuple[np.ndarray, np.ndarray]:
    """The image before each one that it resembles most, if it resembles it enough.

    Definition: color thumbnails of 8 x 8 px, their mean taken away and their length made 1; an image's match is the
    earlier one of largest cosine, and a near-duplicate when that cosine and the one of thumbnails of 16 x 16 px reach
    `threshold`. So another size, quality or brightness of a picture is found, and the next frame of a video; a mirrored
    or cropped one is not. Images of one color match nothing. Cost: N^2 / 2 products of 192 numbers, in blocks.

    Args:
        images: (N, H, W, 3) uint8, in the order in which "earlier" is meant.
        threshold: In (0, 1]; [ours] at 0.97, 26 of 20,000 images of CIFAR-10 have a match.

    Returns:
        (N,) int64 positions, -1 without a match; (N,) float32 largest cosines of 8 px, 0 for the first image.
    """
    threshold = number("the threshold of near-duplicates", threshold, 0, 1, ends="(]")
    n = len(images)
    match, cosine = np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.float32)
    coarse = torch.cat([_thumbnails(images[i : i + BLOCK], COARSE) for i in range(0, n, BLOCK)] or [torch.zeros(0, 1)])
    for start in range(0, n, BLOCK):
        products = coarse[start : start + BLOCK] @ coarse[: start + BLOCK].T
        products[:, start:] = products[:, start:].tril(-1)  # itself, and what comes later, is not earlier
        best, place = products.max(dim=1)
        match[start : start + BLOCK], cosine[start : start + BLOCK] = place.numpy(), best.numpy()
    match[cosine < threshold] = -1
    for start in range(0, n, BLOCK):
        rows = start + np.flatnonzero(match[start : start + BLOCK] >= 0)
        pairs = _thumbnails(images[rows], FINE) * _thumbnails(images[match[rows]], FINE)
        match[rows[(pairs.sum(dim=1) < threshold).numpy()]] = -1
    return match, cosine


def _thumbnails(images: np.ndarray, side: int) -> torch.Tensor:
    """(n, 3 side^2) float32 rows of mean 0 and length 1, or 0 for an image of one color."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    rows = adaptive_avg_pool2d(pixels, side).flatten(1)
    rows -= rows.mean(dim=1, keepdim=True)
    rows[rows.abs().amax(dim=1) < 1] = 0
    return normalize(rows)
