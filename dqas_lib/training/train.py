"""Train and evaluate: network name, `ImageSet`, recipe -> `TrainingResult`.

The images live on the device as uint8 and are cropped and mirrored there, a batch at a time, by one gather: no workers,
no per-image Python, no synchronization inside a step. Equal settings on the same machine and device give equal results;
a CPU and a GPU, two kinds of GPU, or CPUs with and without bfloat16 differ in the last bits and hence, after many
steps, in single predictions.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from dqas_lib.core.devices import native_bfloat16
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import torch_generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.features import predict
from dqas_lib.training.networks import NETWORKS, Network, make_network
from dqas_lib.training.optimizers import AdamW, MomentumSGD, schedule
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

ADAM_DECAY = 0.05  # weight decay of networks trained by AdamW


BFLOAT16_SIDE = 32  # on a CPU: below, casting costs more than the products save (a step at 8 px: 0.8 x the speed)


def in_bfloat16(precision: str, device: torch.device, size: int) -> bool:
    """Whether a training step on images of `size` pixels computes its products in bfloat16.

    With "auto": on CUDA, and on a CPU that has instructions for it (AVX512-BF16, AMX) from BFLOAT16_SIDE pixels on,
    where a training of the small network takes about 0.7 of the time. [ours]
    """
    if precision != "auto":
        return precision == "bfloat16"
    return device.type == "cuda" or (size >= BFLOAT16_SIDE and native_bfloat16())


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network and what it reached on the evaluation set.

    accuracy: last-epoch accuracy in [0, 1] (the one that is reported); best_accuracy: the best of the evaluations on
    the way (a selection on the evaluation set, reported in its own column only); recall: (C,) accuracy of each class,
    NaN for a class without images; cross_entropy: nats an image; logits: (M, C) float32 of the evaluation set;
    history: step, loss (mean training loss since the last evaluation), accuracy; seconds: training alone.
    Without an evaluation set the accuracies are NaN and logits has no rows.
    """

    network: Network
    accuracy: float
    best_accuracy: float
    recall: np.ndarray
    cross_entropy: float
    logits: np.ndarray
    history: dict[str, np.ndarray] = field(repr=False)
    seconds: float
    images_per_second: float


def augment(images: Tensor, picks: Tensor, *, pad: int, mirror: bool, rng: torch.Generator) -> Tensor:
    """Random crop (and mirror) of a batch by one gather.

    images: (N, H + 2 pad, W + 2 pad, 3) uint8, already padded with black; picks: (B,) positions.
    Gives (B, H, W, 3) uint8. The random numbers come from a CPU generator: equal on every device.
    """
    n, device = len(picks), images.device
    height, width = images.shape[1] - 2 * pad, images.shape[2] - 2 * pad
    offsets = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=rng)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.arange(width)
    if mirror:
        flipped = torch.rand(n, 1, generator=rng) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows = rows.to(device, non_blocking=True)
    columns = columns.to(device, non_blocking=True)
    return images[picks[:, None, None], rows[:, :, None], columns[:, None, :]]


def train(
    images: ImageSet,
    *,
    setting: Setting | None = None,
    seed: int = 0,
    evaluate_on: ImageSet | None = None,
    weights: np.ndarray | None = None,
    after_step: Callable[[int, Network], None] | None = None,
) -> TrainingResult:
    """Train a fresh network on `images` and evaluate it.

    weights: (N,) loss weights >= 0, used relative to their mean (for coreset methods that define them).
    after_step: called with the number of steps done and the network, after each step (for training dynamics).
    Raises InputError for an empty set, an unknown network or recipe, weights that sum to 0, a missing device.
    """
    setting = setting or Setting()
    with threads(setting.network, torch.device(setting.device)):
        return _train(images, setting, seed, evaluate_on, weights, after_step)


def _train(
    images: ImageSet,
    setting: Setting,
    seed: int,
    evaluate_on: ImageSet | None,
    weights: np.ndarray | None,
    after_step: Callable[[int, Network], None] | None,
) -> TrainingResult:
    network, recipe, device = setting.network, setting.recipe, torch.device(setting.device)
    if not len(images):
        raise InputError("training needs at least one image; got an empty set")
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float32)
        if weights.shape != (len(images),) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
            raise InputError(f"weights must be {len(images)} numbers >= 0 that do not sum to 0")
        weights = torch.from_numpy(weights / weights.mean()).to(device)
    model = make_network(network, images.n_classes, images.size, seed)
    model.normalize_by(images.images)
    model = model.to(device)
    pad = max(1, round(recipe.pad * images.size)) if recipe.pad else 0
    # functional.pad counts from the last axis: channels, width, height
    pixels = functional.pad(torch.from_numpy(images.images).to(device), (0, 0, pad, pad, pad, pad))
    labels = torch.from_numpy(images.labels).to(device)
    optimizer, peak = _optimizer(model, network, recipe)
    rng = torch_generator(seed, "training")
    batch, total = recipe.batch(len(images)), recipe.total_steps(len(images))
    evaluate_after = {round(total * (i + 1) / recipe.evaluations) for i in range(recipe.evaluations)} | {total}
    history: dict[str, list[float]] = {"step": [], "loss": [], "accuracy": []}
    stream = torch.zeros(0, dtype=torch.int64)
    losses: list[Tensor] = []
    seconds, started = 0.0, time.perf_counter()
    logits = np.zeros((0, images.n_classes), dtype=np.float32)
    model.train()
    low = in_bfloat16(recipe.precision, device, images.size)
    bar = tqdm(range(total), desc=f"{network} on {len(images):,} images", disable=not setting.progress, leave=False)
    for step in bar:
        # A stream of shuffled passes cut into full batches: every step has the same shape.
        while len(stream) < batch:
            stream = torch.cat([stream, torch.randperm(len(images), generator=rng)])
        picks, stream = stream[:batch].to(device, non_blocking=True), stream[batch:]
        x = augment(pixels, picks, pad=pad, mirror=images.mirror, rng=rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            output = model(x)
        loss = functional.cross_entropy(
            output.float(),
            labels[picks],
            label_smoothing=recipe.label_smoothing,
            reduction="mean" if weights is None else "none",
        )
        if weights is not None:
            loss = (loss * weights[picks]).mean()
        loss.backward()
        optimizer.step(peak * schedule(step, total, recipe.warmup))
        losses.append(loss.detach())
        if after_step is not None:
            after_step(step + 1, model)
            model.train()
        if step + 1 in evaluate_after:
            mean_loss = torch.stack(losses).mean().item()
            losses.clear()
            seconds += time.perf_counter() - started
            history["step"].append(step + 1)
            history["loss"].append(mean_loss)
            if evaluate_on is not None and len(evaluate_on):
                logits = predict(model, evaluate_on.images, device=device)
                history["accuracy"].append(float((logits.argmax(1) == evaluate_on.labels).mean()))
                bar.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{history['accuracy'][-1]:.3f}")
            model.train()
            started = time.perf_counter()
    model.eval()
    accuracies = history["accuracy"] or [math.nan]
    recall = np.full(images.n_classes, np.nan)
    cross_entropy = math.nan
    if len(logits):
        recall = class_recall(logits.argmax(1), evaluate_on.labels, images.n_classes)
        cross_entropy = float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(evaluate_on.labels)))
    return TrainingResult(
        network=model,
        accuracy=accuracies[-1],
        best_accuracy=max(accuracies),
        recall=recall,
        cross_entropy=cross_entropy,
        logits=logits,
        history={name: np.asarray(values) for name, values in history.items()},
        seconds=seconds,
        images_per_second=total * batch / seconds if seconds else math.nan,
    )


def _optimizer(model: Network, network: str, recipe: Recipe) -> tuple[MomentumSGD | AdamW, float]:
    """The optimizer and its peak learning rate: the recipe's SGD, or AdamW for a network that SGD does not train."""
    parameters, adam_lr = list(model.parameters()), NETWORKS[network].adam_lr
    if adam_lr is not None:
        return AdamW(parameters, weight_decay=ADAM_DECAY), adam_lr
    sgd = MomentumSGD(parameters, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)
    return sgd, recipe.lr


@contextmanager
def threads(network: str, device: torch.device) -> Iterator[None]:
    """The number of torch threads a network is fastest with on a CPU (one for a small one), restored afterwards."""
    wanted, before = NETWORKS[network].threads, torch.get_num_threads()
    if device.type != "cpu" or wanted is None or wanted >= before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def class_recall(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) share of each class's images that are predicted right; NaN for a class without images."""
    counts = np.bincount(labels, minlength=n_classes)
    right = np.bincount(labels[predicted == labels], minlength=n_classes)
    return np.divide(right, counts, out=np.full(n_classes, np.nan), where=counts > 0)
