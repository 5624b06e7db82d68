"""Importance: how much the network's evidence for a class rests on each patch, without a backward pass.

It is the class activation map of the network's last stage, Grad-CAM++ [Chattopadhay et al., 2018; DQ; summary]. With
global average pooling and a linear head the gradient of class k's score S_k at channel c of the activations A is
W_kc / (h w) everywhere: one batched forward gives the maps.
"""

import numpy as np
import torch
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.patches.masks import grid_of
from dqas_lib.training.features import stage_maps
from dqas_lib.training.networks import Network


def activation_maps(
    network: Network,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
) -> np.ndarray:
    """(N, h, w) float32 maps >= 0 of (N, H, W, 3) uint8 images, in one batched forward pass.

    Channel c weighs sum_ij alpha_c relu(g) with g = dS_k/dA_c and alpha_c = 1 / (2 + g sum_ij A_c), that is
    relu(W_kc) / (2 + W_kc mean A_c). The factor exp(S_k) is left out: it does not change an image's ranking.

    Args:
        labels: (N,) the class k whose evidence is mapped.

    Raises:
        InputError: For labels that do not fit.
    """
    labels, n, n_classes = np.asarray(labels, dtype=np.int64), len(images), network.head.out_features
    if labels.shape != (n,) or (n and not 0 <= labels.min() <= labels.max() < n_classes):
        raise InputError(f"labels must be {n} classes in [0, {n_classes}); got shape {labels.shape}")
    device, parts = torch.device(device), []
    batches = torch.from_numpy(labels).to(device).split(batch_size) if n else ()
    with torch.inference_mode():
        for stage, of_batch in zip(stage_maps(network, images, device, batch_size), batches, strict=True):
            weights = network.head.weight[of_batch]
            below = 2 + weights * stage.mean((2, 3))
            weights = weights.relu() / torch.where(below == 0, 1.0, below)
            parts.append(torch.einsum("bdhw,bd->bhw", stage, weights).relu())
    return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 1, 1), dtype=np.float32)


def patch_operator(map_side: int, size: int, patch_size: int) -> np.ndarray:
    """(G, h w) float64 matrix: bilinear enlargement of an (h, w) map to (size, size), then the mean of every patch."""
    grid_of(size, patch_size)
    unit = torch.eye(map_side, dtype=torch.float64)[:, None]
    enlarged = nn.functional.interpolate(unit, size=size, mode="linear", align_corners=False)[:, 0]
    side = enlarged.unflatten(1, (-1, patch_size)).mean(2).T.numpy()
    return np.kron(side, side)


def patch_importance(maps: np.ndarray, size: int, patch_size: int) -> np.ndarray:
    """(N, G) float32 mean importance of every patch of (N, h, h) maps of images with `size` pixels a side."""
    operator = patch_operator(maps.shape[1], size, patch_size)
    return (maps.reshape(len(maps), -1) @ operator.T.astype(np.float32)).astype(np.float32)
