"""Toy images, and features and predictions drawn at random."""

import numpy as np

from dqas_lib.data.image_set import ImageSet
from dqas_lib.pool import Pool


def toy_images(labels: np.ndarray, ids: np.ndarray | None = None, n_classes: int | None = None) -> ImageSet:
    """One-pixel images with the given labels; the pixel is the id modulo 256."""
    labels = np.asarray(labels, dtype=np.int64)
    ids = np.arange(len(labels)) if ids is None else np.asarray(ids)
    n_classes = n_classes or int(labels.max()) + 1
    pixels = np.repeat((ids % 256).astype(np.uint8)[:, None, None, None], 3, axis=3)
    return ImageSet(pixels, labels, ids, tuple(f"class {c}" for c in range(n_classes)), "toy")


def random_given(labels: np.ndarray, n_classes: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random features, logits and dynamics for every method that trains nothing of its own."""
    n = len(labels)
    centers = rng.normal(0, 2, (n_classes, 6))
    logits = rng.normal(0, 1, (n, n_classes))
    logits[np.arange(n), labels] += 1
    return {
        "features": np.maximum(centers[labels] + rng.normal(0, 1, (n, 6)), 0),
        "logits": logits,
        "correct": (rng.random((5, n)) < 0.7).astype(np.float32),
        "margin": rng.normal(1, 1, (5, n)),
        "el2n": rng.random((5, n)),
        "grand": rng.random((5, n)),
    }


def random_pool(labels, ids=None, seed=0, n_classes=3, given_seed=0) -> Pool:
    """A pool with random given work that belongs to the ids."""
    labels = np.asarray(labels)
    ids = np.arange(len(labels)) if ids is None else np.asarray(ids)
    by_id = np.argsort(ids, kind="stable")
    back = np.argsort(by_id)
    given = random_given(labels[by_id], n_classes, np.random.default_rng(given_seed))
    given = {
        name: (values[back] if name in ("features", "logits") else values[:, back]).astype(np.float32)
        for name, values in given.items()
    }
    return Pool(toy_images(labels, ids, n_classes), seed=seed, given=given)
