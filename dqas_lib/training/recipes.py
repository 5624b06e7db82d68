"""TODO."""

import math
from dataclasses import dataclass, replace

from dqas_lib.core.errors import InputError

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum, linear warm-up, cosine to zero, random crop and mirror.

    Transformers, which SGD does not train, get AdamW at their own learning rate (`networks.Architecture`) instead.

    Exactly one of `epochs` (passes over the *given* images: a subset of 10 % gets a tenth of the steps) and `steps`
    (the same number whatever the size of the subset) is set: results of the two kinds are not comparable.
    lr: peak learning rate; warmup: share of the steps; pad: crop padding as a share of the side (1/8 is 4 of 32 px);
    evaluations: how often the network is evaluated on its way, the best of which is "best-epoch" accuracy.
    precision: of the products inside a training step; weights, gradients' sums and evaluation on a CPU stay float32.
    "auto": bfloat16 where that is faster (`in_bfloat16`), else float32; a name of PRECISIONS asks for it everywhere.
    """

    name: str
    epochs: float | None = None
    steps: int | None = None
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    warmup: float = 0.0
    label_smoothing: float = 0.0
    pad: float = 0.125
    evaluations: int = 1
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InputError(f"recipe {self.name!r}: precision is one of {known}; got {self.precision!r}")
        if (self.epochs is None) == (self.steps is None):
            raise InputError(f"recipe {self.name!r}: set exactly one of epochs and steps")
        if (self.epochs if self.steps is None else self.steps) <= 0 or self.batch_size < 1 or self.evaluations < 1:
            raise InputError(f"recipe {self.name!r}: epochs or steps, batch_size and evaluations must be positive")

    def batch(self, n_images: int) -> int:
        """Batch size used for a set of this many images."""
        return min(self.batch_size, n_images)

    def total_steps(self, n_images: int) -> int:
        """Number of optimizer steps for a set of this many images."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * n_images / self.batch(n_images)))

    @property
    def kind(self) -> str:
        return "fixed-step" if self.steps is not None else "fixed-epoch"


RECIPES = {
    # [paper, Section 4.1 as DQ and DeepCore: 200 epochs, SGD 0.1, momentum 0.9, weight decay 5e-4, cosine, batch 128]
    "paper": Recipe("paper", epochs=200, batch_size=128, lr=0.1, evaluations=200),
    # [ours] for a GPU: a fifth of the epochs at twice the batch
    "fast": Recipe(
        "fast", epochs=40, batch_size=256, lr=0.2, nesterov=True, warmup=0.1, label_smoothing=0.05, evaluations=10
    ),
    # [ours] for small networks on a CPU: a fixed number of steps, so that a tiny subset is not under-trained. With
    # fewer (600 of 32) ten times the images gained only 4 points on CIFAR-10: no selection could have shown anything.
    "cpu": Recipe("cpu", steps=1000, batch_size=64, lr=0.1, nesterov=True, warmup=0.1, evaluations=5),
    # [ours] short and strongly decayed, enough for 8 x 8 digits
    "quick": Recipe(
        "quick", steps=200, batch_size=32, lr=0.1, nesterov=True, weight_decay=5e-3, warmup=0.1, evaluations=4
    ),
}


def get_recipe(recipe: str | Recipe) -> Recipe:
    """A recipe by name, or the given one; InputError lists the known names."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise InputError(f"unknown recipe {recipe!r}: the known ones are {', '.join(RECIPES)}")
    return RECIPES[recipe]


def scaled(recipe: str | Recipe, factor: float) -> Recipe:
    """The recipe with its epochs or steps multiplied, evaluated once at the end: for learners inside a selection."""
    recipe = get_recipe(recipe)
    name = f"{recipe.name} x {factor:g}"
    if recipe.steps is not None:
        return replace(recipe, name=name, steps=max(1, round(recipe.steps * factor)), evaluations=1)
    return replace(recipe, name=name, epochs=recipe.epochs * factor, evaluations=1)
