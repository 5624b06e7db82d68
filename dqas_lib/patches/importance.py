"""Importance: how much the network's evidence for a class rests on each patch, without a backward pass.

It is the class activation map of the network's last stage: Grad-CAM++ [Chattopadhay et al., 2018; DQ; summary], or
Grad-CAM [Selvaraju et al., 2017]. With global average pooling and a linear head the gradient of class k's score S_k at
channel c of the activations A is W_kc / (h w) everywhere: one batched forward gives map, prediction and features.
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


def activation(
    network: Network,
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    kind: str = "gradcam++",
    device: str | torch.device = "cpu",
    batch_size: int = 512,
) -> Activation:
    """Maps, logits and features of (N, H, W, 3) uint8 images, in one batched forward pass.

    Args:
        targets: (N,) the class k whose evidence is mapped, usually the labels; None: the predicted class.
        kind: "gradcam" weighs channel c by dS_k/dA_c = W_kc / (h w); "gradcam++" by sum_ij alpha_c relu(dS_k/dA_c) with
            alpha_c = 1 / (2 + (dS_k/dA_c) sum_ij A_c), that is relu(W_kc) / (2 + W_kc mean A_c). The factor exp(S_k) is
            left out: it does not change an image's ranking.

    Raises:
        InputError: For an unknown kind, or targets that do not fit.
    """
    one_of("kind", kind, KINDS)
    head, device, classes = network.head, torch.device(device), None
    if targets is not None:
        targets = np.asarray(targets, dtype=np.int64)
        n_images, n_classes = len(images), head.out_features
        if targets.shape != (n_images,) or (n_images and not 0 <= targets.min() <= targets.max() < n_classes):
            raise InputError(f"targets must be {n_images} classes in [0, {n_classes}); got shape {targets.shape}")
        classes = torch.from_numpy(targets)
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
                if kind == "gradcam":
                    weights = weights / stage[0, 0].numel()
                else:
                    below = 2 + weights * pooled
                    weights = weights.relu() / torch.where(below == 0, 1.0, below)
                parts.append((torch.einsum("bdhw,bd->bhw", stage, weights).relu(), logits, pooled))
    return Activation(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))


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
