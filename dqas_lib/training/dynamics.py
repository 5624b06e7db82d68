"""Training dynamics: what a network thought of every image at several checkpoints of its training.

All images are passed through the network at evenly spaced checkpoints, in evaluation mode and without augmentation.
Toneva et al. look at an image when it is in a batch; this is another subsample of their definition. [ours]
"""

from functools import lru_cache, partial

import numpy as np

from dqas_lib.core.checks import whole_number
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.features import extract, head_logits
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.networks import Network
from dqas_lib.training.probabilities import true_class_margin
from dqas_lib.training.recipes import get_recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import resized, train


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


def training_dynamics(images: ImageSet, *, setting: Setting, seed: int, checkpoints: int = 20) -> dict[str, np.ndarray]:
    """Train on all the images and record `outcome` at `checkpoints` evenly spaced steps, the last one included.

    With progressive resizing the images are looked at in the side that is being trained at. Gives "step" (E,), the
    arrays of `outcome` as (E, N), and "features" (N, d) and "logits" (N, C) after the last step. Cost: the training,
    and E passes over the images.
    """
    whole_number("checkpoints", checkpoints)
    setting = setting.suited_to(images)
    recipe = get_recipe(setting.recipe)
    total = recipe.total_steps(len(images))
    steps = sorted({max(1, round(total * (i + 1) / checkpoints)) for i in range(checkpoints)})
    records: list[dict[str, np.ndarray]] = []
    last: dict[str, np.ndarray] = {}
    at_side = lru_cache(maxsize=1)(partial(resized, images.images))  # a side lasts for several checkpoints

    def record(step: int, model: Network) -> None:
        if step in steps:
            shown = at_side(recipe.side(step - 1, total, images.size))
            features = extract(model, shown, device=setting.device)
            last.update(features=features, logits=head_logits(model, features))
            records.append(outcome(**last, labels=images.labels))

    train(images, setting=setting, seed=seed, after_step=record)
    return {"step": np.asarray(steps), **last, **{name: np.stack([r[name] for r in records]) for name in records[0]}}


def forgetting_events(correct: np.ndarray) -> np.ndarray:
    """(N,) times an image went from right to wrong in (E, N); infinite where never right [Toneva et al., ICLR 2019]."""
    correct = np.asarray(correct, dtype=bool)
    events = (correct[:-1] & ~correct[1:]).sum(axis=0).astype(np.float64)
    events[~correct.any(axis=0)] = np.inf
    return events


def area_under_margin(margin: np.ndarray) -> np.ndarray:
    """(N,) mean over the checkpoints of (E, N) margins of the label's logit: small for hard images [AUM, 2020]."""
    return np.asarray(margin, dtype=np.float64).mean(axis=0)
