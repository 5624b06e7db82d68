"""Training dynamics: what a network thought of every image at several checkpoints of its training.

All images are passed through the network at evenly spaced checkpoints, in evaluation mode and without augmentation.
Toneva et al. look at an image when it is in a batch; this is another subsample of their definition. [ours]
"""

from collections.abc import Iterator
from functools import lru_cache, partial

import joblib
import numpy as np
import torch

from dqas_lib.core.checks import whole_number
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.features import extract, head_logits
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.networks import Network
from dqas_lib.training.probabilities import true_class_margin
from dqas_lib.training.recipes import get_recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import KEPT_BYTES, resized, train

BLOCK = 8192  # images looked at in one go, a multiple of the batches of `extract`
AT_ONCE = 1 << 25  # logits held while outcomes are worked out: all of Tiny ImageNet's, 33,554 images of 1,000 classes


def outcome(features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """What is recorded at a checkpoint, from (N, d) features, (N, C) logits and (N,) labels.

    correct: (N,) whether the largest logit is the label's; margin: (N,) the label's logit minus the largest other one;
    el2n: (N,) norm of softmax - onehot; grand: (N,) norm of the last layer's gradient, el2n * sqrt(1 + |h|^2).
    """
    gradients = Gradients.of(features, logits, labels)
    return {
        "correct": logits.argmax(axis=1) == labels,
        "margin": true_class_margin(logits, labels).astype(np.float32),
        "el2n": np.linalg.norm(gradients.g, axis=1).astype(np.float32),
        "grand": gradients.norms.astype(np.float32),
    }


def look(
    network: Network, images: np.ndarray, order: np.ndarray, *, side: int, device: str | torch.device
) -> np.ndarray:
    """(N, d) float32 features of (N, H, W, 3) images, which may be memory-mapped, block by block.

    Where `joblib.parallel_config` names a backend, such as that of a Dask client, the blocks are looked at there.

    Args:
        order: (N,) positions in the order in which they are cut into blocks; features are in that of the images.
        side: Pixels a side that the images are shown in.
    """
    features = np.empty((len(images), network.head.in_features), dtype=np.float32)
    blocks = [order[first : first + BLOCK] for first in range(0, len(order), BLOCK)]
    # in a partial, which Dask sends with the task: temporary arrays that it scatters may be gone when the task comes
    shown = (joblib.delayed(partial(_features, network, images[rows], side, device))() for rows in blocks)
    for rows, values in zip(blocks, joblib.Parallel()(shown), strict=True):
        features[rows] = values
    return features


def _features(network: Network, images: np.ndarray, side: int, device: str | torch.device) -> np.ndarray:
    return extract(network, resized(images, side), device=device)


def _logits(network: Network, features: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows, and their logits, AT_ONCE at a time."""
    size = max(1, AT_ONCE // network.head.out_features)
    for rows in (slice(first, first + size) for first in range(0, len(features), size)):
        yield rows, head_logits(network, features[rows])


def training_dynamics(
    images: ImageSet, *, setting: Setting, seed: int, checkpoints: int = 20, with_logits: bool = False
) -> dict[str, np.ndarray]:
    """Train on all the images and record `outcome` at `checkpoints` evenly spaced steps, the last one included.

    With progressive resizing the images are looked at in the side that is being trained at. Gives "step" (E,), the
    arrays of `outcome` as (E, N), and "features" (N, d) after the last step, and if asked for "logits" (N, C), which
    are large where classes are many. Cost: the training, and E passes over the images.
    """
    whole_number("checkpoints", checkpoints)
    setting = setting.suited_to(images)
    recipe = get_recipe(setting.recipe)
    total = recipe.total_steps(len(images))
    steps = sorted({max(1, round(total * (i + 1) / checkpoints)) for i in range(checkpoints)})
    records: list[dict[str, np.ndarray]] = []
    features, order = np.empty((0, 0), dtype=np.float32), np.arange(len(images))
    at_side = lru_cache(maxsize=1)(partial(resized, images.images))  # a side lasts for several checkpoints

    def record(step: int, model: Network) -> None:
        nonlocal features
        if step in steps:
            side = recipe.side(step - 1, total, images.size)
            shown = at_side(side) if images.images.nbytes <= KEPT_BYTES else images.images
            features = look(model, shown, order, side=side, device=setting.device)
            parts = [outcome(features[rows], part, images.labels[rows]) for rows, part in _logits(model, features)]
            records.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    network = train(images, setting=setting, seed=seed, after_step=record).network
    logits = {"logits": np.concatenate([part for _, part in _logits(network, features)])} if with_logits else {}
    recorded = {name: np.stack([r[name] for r in records]) for name in records[0]}
    return {"step": np.asarray(steps), "features": features, **logits, **recorded}


def forgetting_events(correct: np.ndarray) -> np.ndarray:
    """(N,) times an image went from right to wrong in (E, N); infinite where never right [Toneva et al., ICLR 2019]."""
    correct = np.asarray(correct, dtype=bool)
    events = (correct[:-1] & ~correct[1:]).sum(axis=0).astype(np.float64)
    events[~correct.any(axis=0)] = np.inf
    return events


def area_under_margin(margin: np.ndarray) -> np.ndarray:
    """(N,) mean over the checkpoints of (E, N) margins of the label's logit: small for hard images [AUM, 2020]."""
    return np.asarray(margin, dtype=np.float64).mean(axis=0)
