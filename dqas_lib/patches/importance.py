"""TODO."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dqas_lib.core.errors import InputError
from dqas_lib.patches.masks import grid_of
from dqas_lib.training.networks import Network

KINDS = ("gradcam++", "gradcam")


@dataclass(frozen=True, eq=False)
class Activation:
    """What one forward pass over N images gives.

    maps: (N, h, w) float32 >= 0, class activation maps at the resolution of the last stage; logits: (N, C);
    features: (N, d) pooled activations.
    """

    maps: np.ndarray
    logits: np.ndarray
    features: np.ndarray


def closed_form_maps(stage: Tensor, head: nn.Linear, targets: Tensor | None, kind: str) -> tuple[Tensor, Tensor]:
    """Class activation maps of a pooling + linear head without a backward pass.

    stage: (B, d, h, w) activations A; targets: (B,) classes k, or None for the predicted ones.
    Grad-CAM weighs channel c by dS_k/dA_c = W_kc / (h w). Grad-CAM++ weighs it by
    sum_ij alpha_c relu(dS_k/dA_c), alpha_c = 1 / (2 + (dS_k/dA_c) sum_ij A_c), which is
    relu(W_kc) / (2 + W_kc mean A_c); the factor exp(S_k) is left out: it does not change an image's ranking.
    Gives (B, h, w) maps and (B, C) logits.
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

    targets: (N,) the class whose evidence is mapped, usually the labels; None: the predicted class.
    Raises InputError for an unknown kind or targets that do not fit.
    """
    _check_kind(kind)
    targets = _check_targets(targets, len(images), network.head.out_features)
    device = torch.device(device)
    network.eval()
    head = network.head
    side = 0 if len(images) else 1
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for start in range(0, len(images), batch_size):
            block = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(device)
            stage = network.feature_map(block).float()
            classes = None if targets is None else targets[start : start + batch_size].to(device)
            with torch.autocast(device.type, enabled=False):
                maps, logits = closed_form_maps(stage, head, classes, kind)
                parts.append((maps, logits, stage.mean((2, 3))))
    if not parts:
        empty = np.zeros((0, side, side), dtype=np.float32)
        shapes = (head.out_features, head.in_features)
        return Activation(empty, *(np.zeros((0, n), dtype=np.float32) for n in shapes))
    return Activation(*(torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True)))


def activation_by_autograd(
    network: nn.Module,
    stage: nn.Module,
    images: np.ndarray,
    targets: np.ndarray | None = None,
    *,
    kind: str = "gradcam++",
    device: str | torch.device = "cpu",
    batch_size: int = 128,
) -> np.ndarray:
    """(N, h, w) class activation maps of any network, by one backward pass a batch.

    network: (B, H, W, 3) uint8 images -> (B, C) logits; stage: the module in it whose (B, d, h, w) output is mapped.
    For heads that are not pooling + linear; equal to `activation` for those that are. Grad-CAM++ as in its paper,
    equation 19, with exp of the score as in the closed form.
    """
    _check_kind(kind)
    device = torch.device(device)
    seen: list[Tensor] = []
    hook = stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network.eval()
    maps = []
    try:
        for start in range(0, len(images), batch_size):
            seen.clear()
            block = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(device)
            with torch.enable_grad():
                logits = network(block)
                if not seen or seen[-1].ndim != 4:
                    found = "nothing" if not seen else str(tuple(seen[-1].shape))
                    raise InputError(f"the stage to be mapped must give (B, d, h, w) activations; it gave {found}")
                wanted = _check_targets(targets, len(images), logits.shape[1])
                classes = logits.argmax(1) if wanted is None else wanted[start : start + batch_size].to(device)
                score = logits.gather(1, classes[:, None]).sum()
                gradient = torch.autograd.grad(score, seen[-1])[0].detach()
            maps.append(_weighted_map(seen[-1].detach(), gradient, kind))
    finally:
        hook.remove()
    return torch.cat(maps).float().cpu().numpy() if maps else np.zeros((0, 1, 1), dtype=np.float32)


def _weighted_map(stage: Tensor, gradient: Tensor, kind: str) -> Tensor:
    """(B, h, w) Grad-CAM or Grad-CAM++ map from activations and gradients (B, d, h, w)."""
    if kind == "gradcam":
        weights = gradient.mean((2, 3))
    else:
        below = 2 * gradient**2 + gradient**3 * stage.sum((2, 3), keepdim=True)
        alpha = gradient**2 / torch.where(below == 0, 1.0, below)
        weights = (alpha * gradient.relu()).sum((2, 3))
    return torch.einsum("bdhw,bd->bhw", stage, weights).relu()


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(f"unknown importance {kind!r}: give one of {', '.join(KINDS)}")


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
