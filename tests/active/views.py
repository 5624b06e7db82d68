"""Views of a round on random features: no learner is trained."""

from dataclasses import replace

import numpy as np

from dqas_lib.active.round import Learners, View
from dqas_lib.data.image_set import ImageSet


def labeled(labels) -> ImageSet:
    """One-pixel images with these labels."""
    labels = np.asarray(labels)
    names = tuple(f"class {label}" for label in range(labels.max() + 1))
    return ImageSet(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, np.arange(len(labels)), names, "toy", False)


def made(learners: Learners) -> dict[str, Learners]:
    """Learners that need no training."""
    return {"learner": learners, "cross-fitted": learners}


def view_of(n=120, dim=6, n_classes=4, n_learners=2, seed=0, **changes) -> View:
    """A view on random features whose class means differ; a third selected, a third candidates, a third validation."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    means = rng.normal(0, 1.5, (n_classes, dim))
    features = (means[labels] + rng.normal(0, 1, (n_learners, n, dim))).astype(np.float32)
    logits = (features @ means.T + rng.normal(0, 0.5, (n_learners, n, n_classes))).astype(np.float32)
    order = rng.permutation(n)
    selected, candidates, validation = (np.sort(part) for part in np.split(order, 3))
    learners = Learners(features, logits, (selected,) * n_learners)
    view = View(
        images=labeled(labels),
        selected=selected,
        candidates=candidates,
        validation=validation,
        pool_seed=seed,
        number=1,
        n_learners=n_learners,
        train=lambda positions, seed: (features[0], logits[0]),
        made=made(learners),
    )
    return replace(view, **changes)
