"""Importance: how much the network's evidence for a class rests on each patch, without a backward pass.

Importance is the class activation map of the network's last stage: Grad-CAM [Selvaraju et al., 2017] or Grad-CAM++
[Chattopadhay et al., 2018; DQ; summary]. With global average pooling and a linear head the gradient of class k's score
at channel c is W_kc / (h w) everywhere: one batched forward gives map, prediction and features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dqas_lib.core.checks import one_of
from dqas_lib.core.errors import InputError
from dqas_lib.patches.masks import grid_of
from dqas_lib.training.networks import Network

KINDS = ("gradcam++", "gradcam")


@dataclass(frozen=True, eq=False)
class Activation:
    """What one forward pass gives: maps (N, h, w) float32 >= 0 of the last stage, logits (N, C), features (N, d)."""

    maps: np.ndarray
    logits: np.ndarray
    features: np.ndarray


def closed_form_maps(stage: Tensor, head: nn.Linear, targets: Tensor | None, kind: str) -> tuple[Tensor, Tensor]:
    """(B, h, w) class activation maps and (B, C) logits, from (B, d, h, w) activations A and a linear head W.

    Grad-CAM weighs channel c by dS_k/dA_c = W_kc / (h w). Grad-CAM++ weighs it by
    sum_ij alpha_c relu(dS_k/dA_c), alpha_c = 1 / (2 + (dS_k/dA_c) sum_ij A_c), which is
    relu(W_kc) / (2 + W_kc mean A_c); the factor exp(S_k) is left out: it does not change an image's ranking.
    targets: (B,) classes k, or None for the predicted ones.
    """
    pooled = stage.mean((2, 3))
    logits = head(pooled)
    rows = head.weight[logits.argmax(1) if targets is None else targets]
    if kind == "gradcam":
        weights = rows / (stage.shape[2] * stage.shape[3])
    else:
        below = 2 + rows * pooled
        weights = rows.relu() / torch.where(below == 0, 1.0, below)
    maps = torch.einsum("bdhw,bd->bhw", stage, weights.to(stage.dtype)).relu()
    return maps, logits


def activation(
    network: Network,
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    kind: str = "gradcam++",
    device: str | torch.device = "cpu",
    batch_size: int = 512,
) -> Activation:
    """Class activation maps, logits and features of (N, H, W, 3) uint8 images, in one batched forward pass.

    Args:
        targets: (N,) the class whose evidence is mapped, usually the labels; None: the predicted class.
        kind: One of KINDS.

    Raises:
        InputError: For an unknown kind or targets that do not fit.
    """
    one_of("importance", kind, KINDS)
    head, device = network.head, torch.device(device)
    classes = _check_targets(targets, len(images), head.out_features)
    network.eval()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for start in range(0, max(len(images), 1), batch_size):
            rows = slice(start, start + batch_size)
            stage = network.feature_map(torch.from_numpy(np.ascontiguousarray(images[rows])).to(device)).float()
            with torch.autocast(device.type, enabled=False):
                k = None if classes is None else classes[rows].to(device)
                maps, logits = closed_form_maps(stage, head, k, kind)
                parts.append((maps, logits, stage.mean((2, 3))))
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
    grid = grid_of(size, patch_size)
    unit = torch.eye(map_side, dtype=torch.float64)[:, None]
    enlarged = nn.functional.interpolate(unit, size=size, mode="linear", align_corners=False)[:, 0]
    side = enlarged.reshape(map_side, grid, patch_size).mean(2).T.numpy()
    return np.einsum("ai,bj->abij", side, side).reshape(grid * grid, map_side * map_side)


def patch_importance(maps: np.ndarray, size: int, patch_size: int) -> np.ndarray:
    """(N, G) float32 mean importance of every patch of (N, h, h) maps of images with `size` pixels a side."""
    operator = patch_operator(maps.shape[1], size, patch_size)
    return (maps.reshape(len(maps), -1) @ operator.T.astype(np.float32)).astype(np.float32)
