"""Reconstruction: dropped patches filled in by an autoencoder, kept ones bit for bit, and how wrong it comes out."""

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from dqas_lib.core.errors import InputError
from dqas_lib.patches.autoencoder import Autoencoder
from dqas_lib.patches.masks import grid_of, paste, pixel_mask, to_patches

BLOCK = 4096  # images that errors are measured on at a time: bounds the memory


def check_fit(autoencoder: Autoencoder, size: int) -> None:
    """InputError when the autoencoder was made for images of another size."""
    if autoencoder.size != size:
        made = f"the autoencoder was made for images of {autoencoder.size} px"
        raise InputError(f"{made}, these have {size} px: train one for them")


def reconstruct(
    autoencoder: Autoencoder,
    images: np.ndarray,
    kept: np.ndarray,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
    progress: bool = False,
) -> np.ndarray:
    """(N, H, W, 3) uint8: the kept patches of `images` bit for bit, the dropped ones reconstructed.

    Images with equally many kept patches are computed together; by machine, device and batch a pixel may differ by one
    level. kept: (N, G) bool, at least one True per row; InputError when it or the images do not fit.
    """
    check_fit(autoencoder, images.shape[1])
    kept = np.asarray(kept, dtype=bool)
    n_patches = grid_of(autoencoder.size, autoencoder.patch_size) ** 2
    if kept.shape != (len(images), n_patches):
        raise InputError(f"the masks of {len(images)} images must be {(len(images), n_patches)}; got {kept.shape}")
    counts = kept.sum(axis=1)
    if len(images) and counts.min() < 1:
        raise InputError("an image without a single kept patch cannot be reconstructed: keep at least one")
    if isinstance(autoencoder, nn.Module):
        autoencoder.to(device).eval()
    out = images.copy()
    groups = [np.flatnonzero(counts == count) for count in np.unique(counts) if count < n_patches]
    batches = [rows[i : i + batch_size] for rows in groups for i in range(0, len(rows), batch_size)]
    with torch.inference_mode():
        for rows in tqdm(batches, desc="reconstruct", disable=not progress, leave=False):
            pixels, mask = torch.from_numpy(images[rows]).to(device), torch.from_numpy(kept[rows]).to(device)
            filled = autoencoder.fill(pixels, mask).round().clamp(0, 255).to(torch.uint8)
            out[rows] = paste(images[rows], filled.cpu().numpy(), kept[rows])
    return out


def reconstruction_error(
    autoencoder: Autoencoder, images: np.ndarray, *, device: str | torch.device = "cpu", progress: bool = False
) -> np.ndarray:
    """(N, G) float32: how wrong every patch of (N, H, W, 3) uint8 images comes back, mean squared, in gray levels^2.

    Four passes hide one patch of every 2 x 2 each, reconstructed from its neighbors [ours]; zeros for a single patch.
    """
    check_fit(autoencoder, images.shape[1])
    grid = grid_of(autoencoder.size, autoencoder.patch_size)
    side = np.arange(grid) % 2
    part = (2 * side[:, None] + side).ravel()
    error = np.zeros((len(images), grid * grid), dtype=np.float32)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        for hidden in range(4 if grid > 1 else 0):
            kept = np.broadcast_to(part != hidden, (len(block), len(part)))
            reconstructed = reconstruct(autoencoder, block, kept, device=device, progress=progress)
            off = to_patches(reconstructed, autoencoder.patch_size).astype(np.float32)
            off -= to_patches(block, autoencoder.patch_size)
            error[start : start + BLOCK, part == hidden] = (off**2).mean(axis=(2, 3, 4))[:, part == hidden]
    return error


def mean_fill(images: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Dropped patches replaced by the mean color of the image's kept pixels: the simplest reconstruction."""
    mask = pixel_mask(kept, images.shape[1])[..., None]
    mean = np.round((images * mask).sum(axis=(1, 2)) / mask.sum(axis=(1, 2))).astype(np.uint8)
    return np.where(mask, images, mean[:, None, None])


def dropped_psnr(images: np.ndarray, reconstructed: np.ndarray, kept: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all dropped pixels of all images together; infinite when none differs."""
    mask = ~pixel_mask(kept, images.shape[1])
    squares = (images[mask].astype(np.float64) - reconstructed[mask]) ** 2
    return 10 * float(np.log10(255**2 / squares.mean())) if squares.any() else float("inf")
