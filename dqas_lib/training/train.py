"""Train and evaluate: `ImageSet`, `Setting`, seed -> `TrainingResult`.

The images live on the device as uint8 and are padded, cropped and mirrored there, a batch at a time: no workers, no
per-image Python. Random draws come from the CPU, many steps ahead; nothing inside a step waits for the device. Of more
than KEPT_BYTES, only the images of a batch are read, resized and sent, as it is made. Equal settings on the same
machine and device give equal results; devices differ in the last bits and hence, after many steps, in single
predictions.

Trainings with equal seeds start from equal weights; on equally many images they also share the order of the data, and
how each image is cropped and mirrored.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd
from tqdm.auto import tqdm

from dqas_lib.core.devices import native_bfloat16, repeatable
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import torch_generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.features import predict
from dqas_lib.training.networks import NETWORKS, Network, make_network
from dqas_lib.training.probabilities import class_recall
from dqas_lib.training.recipes import Recipe, get_recipe, schedule
from dqas_lib.training.setting import Setting

ADAM_DECAY = 0.05  # weight decay of networks trained by AdamW
BFLOAT16_SIDE = 32  # on a CPU: below, casting costs more than the products save (a step at 8 px: 0.8 x the speed)
AHEAD = 256  # steps whose random draws are made, and sent to a GPU, at once
KEPT_BYTES = 1 << 31  # of images that are held in the side they are trained at
Update = Callable[[float], None]  # learning rate -> a step is made, and the gradients are dropped


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network and what it reached; without an evaluation set accuracies are NaN and logits has no rows.

    Args:
        accuracy: In [0, 1], after the last step; best_accuracy: the best on the way, chosen on the evaluation set.
        recall: (C,) accuracy of each class, NaN for a class without images.
        cross_entropy: Nats per image; logits: (M, C) float32, both of the evaluation set.
        history: step, loss (mean training loss since the last evaluation), accuracy.
        seconds, images_per_second: Of the training alone.
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


def train(
    images: ImageSet,
    *,
    setting: Setting | None = None,
    seed: int = 0,
    evaluate_on: ImageSet | None = None,
    weights: np.ndarray | None = None,
    after_step: Callable[[int, Network], None] | None = None,
) -> TrainingResult:
    """Train a fresh network on `images` and evaluate it; images with soft labels teach those, without smoothing.

    Args:
        seed: Of the initial weights and of the order of the data.
        weights: (N,) loss weights >= 0, used relative to their mean.
        after_step: Called with the number of steps done and the network, after each step (for training dynamics).

    Raises:
        InputError: For an empty set, weights that do not fit, a network that cannot take images of this side, a
            training that diverges.
    """
    if not len(images):
        raise InputError("training needs at least one image; got an empty set")
    setting = (setting or Setting()).suited_to(images)
    recipe, device = get_recipe(setting.recipe), torch.device(setting.device)
    _check_sides(images.size, recipe, setting.network)
    factors, reduction = None, "mean"
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float32)
        if weights.shape != (len(images),) or not (np.isfinite(weights) & (weights >= 0)).all() or weights.sum() == 0:
            raise InputError(f"weights must be {len(images)} numbers >= 0 that do not sum to 0")
        factors, reduction = torch.from_numpy(weights / weights.mean()).to(device), "none"
    batch, total = recipe.batch(len(images)), recipe.total_steps(len(images))
    evaluate_after = {round(total * (i + 1) / recipe.evaluations) for i in range(recipe.evaluations)} | {total}
    history: dict[str, list[float]] = {"step": [], "loss": [], "accuracy": []}
    logits, losses, seconds = np.zeros((0, images.n_classes), dtype=np.float32), [], 0.0
    with threads(setting.network, device):
        model = make_network(setting.network, images.n_classes, images.size, seed)
        model.normalize_by(images)
        model.precision = recipe.precision
        model = model.to(device).train()
        update, peak = _optimizer(model, setting)
        labels, side, smoothing = torch.from_numpy(images.labels).to(device), 0, recipe.label_smoothing
        if images.soft_labels is not None:
            labels, smoothing = probabilities_of(images.soft_labels).to(device), 0.0
        rng, low = torch_generator(seed, "training"), in_bfloat16(recipe.precision, device, images.size)
        borders = [border(recipe.side(step, total, images.size), recipe.pad) for step in range(total)]
        views = _drawn_ahead(images, batch, borders, rng, device)
        what, started = f"{setting.network} on {len(images):,} images", time.perf_counter()
        for step in (bar := tqdm(range(total), desc=what, disable=not setting.progress, leave=False)):
            if side != (wanted := recipe.side(step, total, images.size)):
                side = wanted
                pixels = held(images.images, side, device)
            picks, offsets, flips = next(views)
            x = crop(pixels, picks, offsets, flips, side, borders[step])
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                output = model(x)
            loss = functional.cross_entropy(
                output.float(), labels[picks], label_smoothing=smoothing, reduction=reduction
            )
            if factors is not None:
                loss = (loss * factors[picks]).mean()
            loss.backward()
            update(peak * schedule(step, total, recipe.warmup))
            losses.append(loss.detach())
            if after_step is not None:
                after_step(step + 1, model)
                model.train()
            if step + 1 in evaluate_after:
                history["step"].append(step + 1)
                every = torch.stack(losses)
                if not (finite := every.isfinite()).all():
                    raise InputError(
                        f"the training diverged: its loss is NaN or infinite from step "
                        f"{step + 2 - len(losses) + int((~finite).int().argmax())} of {total}; lower the learning rate "
                        f"of recipe {recipe.name!r}, {recipe.lr:g}"
                    )
                history["loss"].append(every.mean().item())
                losses.clear()
                seconds += time.perf_counter() - started
                if evaluate_on is not None and len(evaluate_on):
                    logits = predict(model, evaluate_on.images, device=device)
                    history["accuracy"].append(float((logits.argmax(1) == evaluate_on.labels).mean()))
                    bar.set_postfix(loss=f"{history['loss'][-1]:.3f}", accuracy=f"{history['accuracy'][-1]:.3f}")
                    model.train()
                started = time.perf_counter()
    accuracies = history["accuracy"] or [math.nan]
    truth = evaluate_on.labels if evaluate_on is not None and len(logits) else np.zeros(0, dtype=np.int64)
    return TrainingResult(
        network=model.eval(),
        accuracy=accuracies[-1],
        best_accuracy=max(accuracies),
        recall=class_recall(logits.argmax(1), truth, images.n_classes),
        cross_entropy=float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))),
        logits=logits,
        history={name: np.asarray(values) for name, values in history.items()},
        seconds=seconds,
        images_per_second=total * batch / seconds if seconds else math.nan,
    )


def _check_sides(size: int, recipe: Recipe, network: str) -> None:
    """InputError for images, or a recipe's first sides, that the network cannot take."""
    smallest = min(recipe.pixel_sides(size))
    least = NETWORKS[network].smallest_side
    if least is None and smallest != size:
        raise InputError(
            f"network {network!r} takes images of one side only, and recipe {recipe.name!r} begins at {smallest} of "
            f"{size} px: give a recipe without sides"
        )
    if least is not None and smallest < least:
        raise InputError(
            f"network {network!r} needs images of at least {least} px, and recipe {recipe.name!r} shows it images of "
            f"{smallest} px: give another network, 'small_cnn' for instance"
        )


def probabilities_of(soft_labels: np.ndarray) -> Tensor:
    """(N, C) float32 rows that sum to 1, of soft labels in 255ths."""
    shares = torch.from_numpy(soft_labels).float()
    return shares / shares.sum(dim=1, keepdim=True)


def shuffled(n_images: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Positions, batch by batch, without end: a stream of shuffled passes cut into full batches of one shape."""
    stream = torch.zeros(0, dtype=torch.int64)
    while True:
        while len(stream) < batch:
            stream = torch.cat([stream, torch.randperm(n_images, generator=rng)])
        yield stream[:batch]
        stream = stream[batch:]


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """(N, H, W, 3) uint8 images at `side` pixels a side, antialiased; the given ones when they are."""
    if images.shape[1] == side:
        return images
    small = np.empty((len(images), side, side, 3), dtype=np.uint8)
    for first in range(0, len(images), 1000):
        x = torch.from_numpy(np.require(images[first : first + 1000], requirements="W")).permute(0, 3, 1, 2).float()
        x = functional.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
        small[first : first + 1000] = x.round().permute(0, 2, 3, 1).numpy()
    return small


def held(images: np.ndarray, side: int, device: torch.device) -> Tensor | np.ndarray:
    """The images in this side, on the device; those that take more than KEPT_BYTES as they are given."""
    if images.nbytes > KEPT_BYTES:
        return images
    return torch.from_numpy(np.require(resized(images, side), requirements="W")).to(device)


def border(side: int, fraction: float) -> int:
    """Pixels of padding around images of this side, before a crop: this fraction of it, at least one."""
    return max(1, round(fraction * side)) if fraction else 0


def draw_view(n: int, pad: int, mirror: bool, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(2, n, 1) int16 offsets of random crops, 0 to 2 pad, and (n, 1) whether to mirror them; rng is the CPU's."""
    offsets = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=rng).to(torch.int16)
    return offsets, torch.rand(n, 1, generator=rng) < 0.5 if mirror else torch.zeros(n, 1, dtype=torch.bool)


def _drawn_ahead(
    images: ImageSet, batch: int, borders: list[int], rng: torch.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Positions (B,), offsets and flips of every step, drawn for AHEAD steps at a time: 9 bytes an image to a GPU."""
    batches = shuffled(len(images), batch, rng)
    for first in range(0, len(borders), AHEAD):
        pads = borders[first : first + AHEAD]
        drawn = [(next(batches).to(torch.int32), *draw_view(batch, pad, images.mirror, rng)) for pad in pads]
        yield from zip(*(torch.stack(part).to(device) for part in zip(*drawn, strict=True)), strict=True)


def crop(pixels: Tensor | np.ndarray, picks: Tensor, offsets: Tensor, flips: Tensor, side: int, pad: int) -> Tensor:
    """(B, side, side, 3) crops of what is `held`, at (B,) positions, in a black border, as `draw_view` drew them."""
    if isinstance(pixels, Tensor):
        images = pixels[picks]
    else:
        images = torch.from_numpy(resized(pixels[picks.cpu().numpy()], side)).to(picks.device)
    images = functional.pad(images, (0, 0, pad, pad, pad, pad))  # from the last axis on: channels, width, height
    each, places = (torch.arange(n, device=images.device) for n in (len(picks), side))
    rows, columns = offsets[0] + places, offsets[1] + places
    columns = torch.where(flips, columns.flip(1), columns)
    return images[each[:, None, None], rows[:, :, None], columns[:, None, :]]


def momentum_sgd(parameters: Iterable[Tensor], *, momentum: float, weight_decay: float, nesterov: bool) -> Update:
    """SGD on all the parameters, by torch's function: to make a torch.optim.SGD imports its compiler, for seconds."""
    parameters = list(parameters)
    velocity: list[Tensor | None] = [None] * len(parameters)
    step = partial(sgd, foreach=True, momentum=momentum, nesterov=nesterov, dampening=0.0, maximize=False)

    @torch.no_grad()
    def update(lr: float) -> None:
        step(parameters, _take_gradients(parameters), velocity, lr=lr, weight_decay=weight_decay)

    return update


def clipped_adamw(parameters: Iterable[Tensor], *, weight_decay: float) -> Update:
    """AdamW, by torch's function: betas 0.9 and 0.95, matrices decay, gradients of joint length 1 at most [MAE]."""
    parameters = list(parameters)
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    steps = [torch.zeros(()) for _ in parameters]
    step = partial(adamw, foreach=True, amsgrad=False, beta1=0.9, beta2=0.95, eps=1e-8, maximize=False)

    @torch.no_grad()
    def update(lr: float) -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        for matrix in (p for p in parameters if p.ndim > 1):
            matrix.mul_(1 - lr * weight_decay)
        step(parameters, _take_gradients(parameters), first, second, [], steps, lr=lr, weight_decay=0.0)

    return update


def _take_gradients(parameters: list[Tensor]) -> list[Tensor]:
    gradients = [p.grad for p in parameters if p.grad is not None]
    for p in parameters:
        p.grad = None
    return gradients


def _optimizer(model: Network, setting: Setting) -> tuple[Update, float]:
    """A step and its peak learning rate: the recipe's SGD, or AdamW for a network that SGD does not train."""
    recipe, adam_lr, weights = get_recipe(setting.recipe), NETWORKS[setting.network].adam_lr, model.parameters()
    if adam_lr is not None:
        return clipped_adamw(weights, weight_decay=ADAM_DECAY), adam_lr
    momentum, decay = recipe.momentum, recipe.weight_decay
    return momentum_sgd(weights, momentum=momentum, weight_decay=decay, nesterov=recipe.nesterov), recipe.lr


def in_bfloat16(precision: str, device: torch.device, size: int) -> bool:
    """Whether a training step computes its products in bfloat16; "auto": where that is faster [ours]."""
    faster = device.type == "cuda" or (size >= BFLOAT16_SIDE and native_bfloat16())  # such a CPU: 0.7 of the time
    return faster if precision == "auto" else precision == "bfloat16"


@contextmanager
def threads(network: str, device: torch.device) -> Iterator[None]:
    """How a network is computed: on a GPU `repeatable`, on a CPU with the number of threads it is fastest with."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(min(before, NETWORKS[network].threads or before))
    try:
        with repeatable(device):
            yield
    finally:
        torch.set_num_threads(before)
