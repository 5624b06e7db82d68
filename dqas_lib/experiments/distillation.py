"""Dataset distillation: synthetic images whose features match those of the real ones.

Nothing is selected: `distil` makes new images, with new ids, trained on like any other.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from dqas_lib.core.checks import kinds, number, one_of, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import check_seed, derive, generator, torch_generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.features import extract
from dqas_lib.training.networks import Network, make_network
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import threads

MATCHINGS = ("random", "representative")

_TOGETHER = 2048  # real images in one pass: classes are worked on in chunks, so that memory does not grow with C


@dataclass(frozen=True, eq=False)
class Distilled:
    """Synthetic images, ids "distilled/<class>/<number>"; loss: (steps,) mean squared distance of the class means."""

    images: ImageSet
    loss: np.ndarray
    settings: Mapping[str, Any]
    seconds: float = 0.0


@kinds
def distil(
    images: ImageSet,
    per_class: int,
    *,
    matching: str = "random",
    steps: int = 300,
    real_batch: int = 64,
    lr: float | None = None,
    interval: int = 10,
    seed: int = 0,
    setting: Setting | None = None,
) -> Distilled:
    """Distribution matching (DM), with DREAM's representative matching as an option.

    Definition: minimize sum over classes of |mean of f(real) - mean of f(synthetic)|^2 over the pixels of the synthetic
    images, f the feature map of a freshly initialized network at every step, both seen through the same crop and
    mirror. [DM: Zhao and Bilen, WACV 2023, Algorithm 1]. Batch normalization takes its statistics from real images and
    is then held fixed; steps are of equal length in every image (gradient over its root mean square), momentum 0.5,
    cosine to zero [ours: DM uses instance normalization and plain SGD].
    Cost: `steps` passes of C * (real_batch + per_class) images, backward for the synthetic ones.

    Args:
        images: The real ones.
        per_class: Synthetic images of each class that has any, begun as real ones drawn by the seed.
        matching: "random" draws each class's real batch uniformly; "representative" takes, every `interval` steps, the
            images closest to the centers of real_batch k-means clusters of the class [DREAM: Liu et al., ICCV 2023].
        steps, interval, seed: Number of steps, steps between two choices of representatives, seed of every draw.
        real_batch: Real images per class and step.
        lr: Length of the first step in gray levels (None: `step_length`).
        setting: Network, device, store; the recipe plays no part.

    Raises:
        InputError: For more images per class than there are, an unknown matching, numbers that are not positive.
    """
    counts, setting = images.class_counts, (setting or Setting()).suited_to(images)
    classes, device, store = np.flatnonzero(counts), torch.device(setting.device), setting.store
    first_step = step_length(whole_number("per_class", per_class)) if lr is None else lr
    numbers = {"per_class": per_class, "steps": steps, "real_batch": real_batch, "interval": interval}
    settings: dict[str, Any] = {name: whole_number(name, value) for name, value in numbers.items()}
    settings |= {"lr": number("lr in gray levels", first_step, 0, ends="()"), "seed": check_seed(seed)}
    settings |= {"matching": one_of("matching", matching, MATCHINGS), "images": images.fingerprint()}
    settings |= {"network": setting.network, "device": device.type}
    if not len(images):
        raise InputError("distillation needs images; got an empty set")
    for label in classes[counts[classes] < per_class]:
        raise InputError(
            f"{per_class} distilled images per class were asked for, but class {images.class_names[label]!r} has "
            f"{counts[label]}: distillation makes fewer images than there are"
        )

    def make() -> dict[str, Any]:
        started = time.perf_counter()
        with threads(setting.network, device):
            pixels, loss = _match(images, settings, setting)
        return {"images": pixels, "loss": loss, "seconds": np.float64(time.perf_counter() - started)}

    made = store.load_or_compute("distilled", settings, make, device=device.type, code=(distil,)) if store else make()
    labels, name = np.repeat(classes, per_class), f"{images.name} distilled".strip()
    ids = np.array([f"distilled/{label}/{i % per_class:05d}" for i, label in enumerate(labels)])
    synthetic = dataclasses.replace(images, images=made["images"], labels=labels, ids=ids, name=name)
    return Distilled(synthetic, made["loss"], settings, float(made["seconds"]))


def step_length(per_class: int) -> float:
    """Length of the first step in gray levels: 3, from 17 images per class on 50 / per_class [ours].

    A mean of many images moves when each of them moves little. With steps of 3 gray levels, 100 images per class follow
    the noise of the real batches, and teach 10 points less than where they began (CIFAR-10, validation images).
    """
    return min(3.0, 50 / per_class)


def _match(images: ImageSet, settings: dict[str, Any], setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """(M, H, W, 3) uint8 synthetic images and the (steps,) losses."""
    seed, steps, per_class, real_batch = (settings[name] for name in ("seed", "steps", "per_class", "real_batch"))
    device, by_id = torch.device(setting.device), np.argsort(images.ids, kind="stable")
    members = [by_id[images.labels[by_id] == label] for label in np.flatnonzero(images.class_counts)]
    first = [generator(seed, "distil start", c).permutation(rows)[:per_class] for c, rows in enumerate(members)]
    pixels = torch.from_numpy(images.images).to(device)

    def at(rows: np.ndarray) -> Tensor:
        return pixels[torch.from_numpy(rows).to(device)].float()

    synthetic = at(np.concatenate(first))
    speed = torch.zeros_like(synthetic)
    measured = make_network(setting.network, images.n_classes, images.size, seed)
    measured.normalize_by(images)
    draws, views = generator(seed, "distil batches"), torch_generator(seed, "distil views")
    selected, everything, losses = members, np.concatenate(members), []
    together, pad = max(1, _TOGETHER // real_batch), max(1, round(images.size / 8))
    for step in tqdm(range(steps), desc="distilling", disable=not setting.progress, leave=False):
        model = make_network(setting.network, images.n_classes, images.size, derive(seed, "distil", step)).to(device)
        sample = draws.choice(everything, min(256, len(everything)), replace=False)
        _hold_fixed(model, measured, at(sample))
        if settings["matching"] == "representative" and step % settings["interval"] == 0:
            selected = [representatives(model, images.images, rows, real_batch, seed) for rows in members]
        # one random crop (and mirror) per step: real and synthetic images are seen alike
        down, right = torch.randint(0, 2 * pad + 1, (2,), generator=views).tolist()
        mirrored = images.mirror and bool(torch.rand(1, generator=views) < 0.5)
        view = functools.partial(_cropped, pad=pad, down=down, right=right, mirrored=mirrored)
        slopes, total = [], 0.0
        for start in range(0, len(members), together):
            part = selected[start : start + together]
            real = np.concatenate([draws.choice(rows, real_batch, replace=len(rows) < real_batch) for rows in part])
            own = synthetic[start * per_class : (start + len(part)) * per_class].clone().requires_grad_(True)
            target = class_means(model, view(at(real)), len(part))
            loss = (target - class_means(model, view(own), len(part))).square().mean(dim=1).sum()
            slopes.append(torch.autograd.grad(loss, own)[0])
            total += loss.item()
        slope = torch.cat(slopes)
        speed = 0.5 * speed + slope / slope.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)
        rate = settings["lr"] * 0.5 * (1 + np.cos(np.pi * step / steps))
        synthetic = (synthetic - rate * speed).clamp(0, 255)
        losses.append(total / len(members))
    return synthetic.round().to(torch.uint8).cpu().numpy(), np.asarray(losses)


def _hold_fixed(model: Network, measured: Network, sample: Tensor) -> None:
    """Hold a new network fixed: it normalizes as `measured` does, its batch normalization by some real images."""
    model.mean.copy_(measured.mean)
    model.std.copy_(measured.std)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    model.requires_grad_(False).train().feature_map(sample)
    model.eval()


def class_means(model: Network, batch: Tensor, n_classes: int) -> Tensor:
    """(n_classes, D) mean feature maps, flattened, of a batch sorted by class with equal numbers of each."""
    return model.feature_map(batch).flatten(1).unflatten(0, (n_classes, -1)).mean(dim=1)


def _cropped(batch: Tensor, pad: int, down: int, right: int, mirrored: bool) -> Tensor:
    """(B, H, W, 3) images padded on all sides and cropped to their size again, mirrored or not."""
    height, width = batch.shape[1:3]
    crop = functional.pad(batch, (0, 0, pad, pad, pad, pad))[:, down : down + height, right : right + width]
    return crop.flip(2) if mirrored else crop


def representatives(model: Network, images: np.ndarray, rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The images of a class closest to the centers of k clusters of its features (all when there are k or fewer)."""
    if len(rows) <= k:
        return rows
    from sklearn.cluster import KMeans

    features = extract(model, images[rows], device=next(model.parameters()).device)
    clusters = KMeans(k, n_init=1, max_iter=10, random_state=derive(seed, "dream") % 2**32).fit(features)
    squared = (features**2).sum(axis=1)[:, None] - 2 * features @ clusters.cluster_centers_.T
    return rows[np.unique(squared.argmin(axis=0))]
