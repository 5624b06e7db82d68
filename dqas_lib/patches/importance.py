"""Importance: how much the network's evidence for a class rests on each patch, without a backward pass.

Importance is the class activation map of the network's last stage by Grad-CAM++ [Chattopadhay et al., 2018; DQ;
summary]. With global average pooling and a linear head the gradient of class k's score S_k at channel c of the
activations A is W_kc / (h w) everywhere: one batched forward gives map, prediction and features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dqas_lib.core.errors import InputError
from dqas_lib.patches.masks import grid_of
from dqas_lib.training.networks import Network


@dataclass(frozen=True, eq=False)
class Activation:
    """What one forward pass gives: maps (N, h, w) float32 >= 0 of the last stage, logits (N, C), features (N, d)."""

    maps: np.ndarray
    logits: np.ndarray
    features: np.ndarray


def activation(
    network: Network,
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 512,
) -> Activation:
    """Grad-CAM++ maps, logits and features of (N, H, W, 3) uint8 images, in one batched forward pass.

    Grad-CAM++ weighs channel c by sum_ij alpha_c relu(dS_k/dA_c), alpha_c = 1 / (2 + (dS_k/dA_c) sum_ij A_c). With
    dS_k/dA_c = W_kc / (h w) that is relu(W_kc) / (2 + W_kc mean A_c); the factor exp(S_k) is left out: it does not
    change an image's ranking.

    Args:
        targets: (N,) the class k whose evidence is mapped, usually the labels; None: the predicted class.

    Raises:
        InputError: For targets that do not fit.
    """
    head, device = network.head, torch.device(device)
    classes = _check_targets(targets, len(images), head.out_features)
    network.eval()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for start in range(0, max(len(images), 1), batch_size):
            rows = slice(start, start + batch_size)
            stage = network.feature_map(torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)).float()
            with torch.autocast(device.type, enabled=False):
                pooled = stage.mean((2, 3))
                logits = head(pooled)
                weights = head.weight[logits.argmax(1) if classes is None else classes[rows].to(device)]
                below = 2 + weights * pooled
                weights = weights.relu() / torch.where(below == 0, 1.0, below)
                parts.append((torch.einsum("bdhw,bd->bhw", stage, weights).relu(), logits, pooled))
    return Activation(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))


def _check_targets(targets: np.ndarray | None, n_images: int, n_classes: int) -> Tensor | None:
    if targets is None:
        return None
    targets = np.asarray(targets, dtype=np.int64)
    if targets.shape != (n_images,) or (n_images and not 0 <= targets.min() <= targets.max() < n_classes):
        raise InputError(f"targets must be {n_images} classes in [0, {n_classes}); got shape {targets.shape}")
    return torch.from_numpy(targets)


def patch_operator(map_side: int, size: int, patch_size: int) -> np.ndarray:
    """(G, h w) float64 matrix: bilinear enlargement of an (h, w) map to (size, size), then the mean of every patch.

    Both are linear, so one product replaces them; rows sum to 1.
    """
    grid_of(size, patch_size)
    unit = torch.eye(map_side, dtype=torch.float64)[:, None]
    enlarged = nn.functional.interpolate(unit, size=size, mode="linear", align_corners=False)[:, 0]
    side = enlarged.unflatten(1, (-1, patch_size)).mean(2).T.numpy()
    return np.kron(side, side)


def patch_importance(maps: np.ndarray, size: int, patch_size: int) -> np.ndarray:
    """(N, G) float32 mean importance of every patch of (N, h, h) maps of images with `size` pixels a side."""
    operator = patch_operator(maps.shape[1], size, patch_size)
    return (maps.reshape(len(maps), -1) @ operator.T.astype(np.float32)).astype(np.float32)
