"""Images of classes that are planted to be sensitive, and a recipe that learns them in a moment."""

import numpy as np

from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.recipes import Recipe

TINY = Recipe("tiny", steps=12, batch_size=16, lr=0.1, weight_decay=5e-3)


def planted(seed: int, n_classes: int = 6, spread: tuple[int, ...] = (1, 4), per_class: int = 72) -> ImageSet:
    """8 x 8 images of classes with known spread: a class of `spread` has 12 patterns, the others have one each."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label in range(n_classes):
        kinds = 12 if label in spread else 1
        patterns = rng.uniform(40, 215, (kinds, 8, 8, 1))
        kind = np.arange(per_class) % kinds
        images.append(patterns[kind] + rng.normal(0, 20, (per_class, 8, 8, 1)))
        labels += [label] * per_class
    pixels = np.clip(np.concatenate(images), 0, 255).astype(np.uint8)
    names = tuple(f"class {label}" for label in range(n_classes))
    return ImageSet(np.repeat(pixels, 3, axis=3), np.asarray(labels), np.arange(len(labels)), names, "planted", False)
