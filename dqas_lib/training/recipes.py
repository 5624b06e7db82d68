"""Recipes: how long a network is trained, in which batches, at which learning rates. `RECIPES` holds them by name."""

import math
from dataclasses import dataclass, replace

from dqas_lib.core.checks import check_fields, number, one_of
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: SGD with momentum, linear warm-up, cosine to zero, random crop and mirror.

    Transformers, which SGD does not train, get AdamW at their own learning rate (`networks.Architecture`) instead.
    Results of recipes with `epochs` and of recipes with `steps` are not comparable.

    Args:
        epochs: Passes over the *given* images: a subset of 10 % gets a tenth of the steps. Either this is set or steps.
        steps: The same number of steps whatever the size of the subset.
        lr, warmup: Peak learning rate, and the fraction of the steps until it.
        pad: Crop padding as a fraction of the side (1/8 is 4 of 32 px).
        sides: Progressive resizing: pairs (fraction of the side, fraction of the steps it lasts until); then full size.
        evaluations: How often the network is evaluated on its way, the best of which is the best-epoch accuracy.
        precision: Of the products inside a training step, one of PRECISIONS; "auto": bfloat16 where that is faster.
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
    sides: tuple[tuple[float, float], ...] = ()
    evaluations: int = 1
    precision: str = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        number(f"recipe {self.name!r}: epochs or steps", self.epochs or self.steps or 1, 0)
        number(f"recipe {self.name!r}: lr", self.lr, 0)
        number(f"recipe {self.name!r}: momentum", self.momentum, 0, 1, ends="[)")
        number(f"recipe {self.name!r}: weight_decay", self.weight_decay, 0)
        number(f"recipe {self.name!r}: warmup", self.warmup, 0, 1)
        number(f"recipe {self.name!r}: label_smoothing", self.label_smoothing, 0, 1)
        number(f"recipe {self.name!r}: pad", self.pad, 0, 1)
        one_of(f"recipe {self.name!r}: precision", self.precision, PRECISIONS)
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                f"recipe {self.name!r}: set exactly one of epochs and steps; got {self.epochs} and {self.steps}"
            )
        if (self.epochs or self.steps or 0) <= 0 or self.batch_size < 1 or self.evaluations < 1:
            raise InputError(
                f"recipe {self.name!r}: epochs or steps, batch_size and evaluations must be positive; got {self}"
            )
        until = [0.0, *(part for _, part in self.sides)]
        if not all(0 < side <= 1 for side, _ in self.sides) or until != sorted(set(until)) or until[-1] > 1:
            raise InputError(
                f"recipe {self.name!r}: sides are pairs (fraction of the side, until which fraction of the steps), "
                f"fractions in (0, 1], rising in the second; got {self.sides!r}"
            )

    def batch(self, n_images: int) -> int:
        """Batch size used for a set of this many images."""
        return min(self.batch_size, n_images)

    def total_steps(self, n_images: int) -> int:
        """Number of optimizer steps for a set of this many images."""
        if self.epochs is None:
            return self.steps or 0
        return max(1, math.ceil(self.epochs * n_images / self.batch(n_images)))

    def pixel_sides(self, size: int) -> list[int]:
        """Sides in pixels that images of `size` are trained at, one after the other; the last is `size`."""
        return [*(max(1, round(size * fraction)) for fraction, _ in self.sides), size]

    def side(self, step: int, total: int, size: int) -> int:
        """That of `pixel_sides` in this step of `total`."""
        return self.pixel_sides(size)[sum(step >= until * total for _, until in self.sides)]

    @property
    def kind(self) -> str:
        """One of "fixed-step" and "fixed-epoch"."""
        return "fixed-epoch" if self.steps is None else "fixed-step"


RECIPES: Registry[Recipe] = Registry("recipe")
# [DQ, as DeepCore: 200 epochs, SGD 0.1, momentum 0.9, weight decay 5e-4, cosine, batch 128]
RECIPES.register(Recipe("paper", epochs=200, batch_size=128, lr=0.1, evaluations=200))
# [ours] for a GPU: a fifth of the epochs at twice the batch
RECIPES.register(
    Recipe("fast", epochs=40, batch_size=256, lr=0.2, nesterov=True, warmup=0.1, label_smoothing=0.05, evaluations=10)
)
# [ours] for small networks on a CPU: a fixed number of steps, so that a tiny subset is not under-trained. With
# fewer (600 of 32) ten times the images gained only 4 points on CIFAR-10: no selection could have shown anything.
RECIPES.register(Recipe("cpu", steps=1000, batch_size=64, lr=0.1, nesterov=True, warmup=0.1, evaluations=5))
# [ours] for 32 and 64 px on a CPU: 60 % of the steps at 20 of 32 px, where a step costs two fifths
RECIPES.register(
    Recipe(
        "strong",
        steps=1600,
        lr=0.2,
        nesterov=True,
        weight_decay=1.5e-3,
        warmup=0.2,
        label_smoothing=0.1,
        sides=((0.625, 0.6),),
    )
)
# [ours] short and strongly decayed, enough for 8 x 8 digits
RECIPES.register(
    Recipe("quick", steps=200, batch_size=32, lr=0.1, nesterov=True, weight_decay=5e-3, warmup=0.1, evaluations=4)
)


def get_recipe(recipe: str | Recipe) -> Recipe:
    """A recipe by name, or the given one; InputError lists the known names."""
    return recipe if isinstance(recipe, Recipe) else RECIPES[recipe]


def scaled(recipe: str | Recipe, factor: float) -> Recipe:
    """The recipe with its epochs or steps multiplied, evaluated once at the end: for learners inside a selection."""
    recipe = get_recipe(recipe)
    steps = None if recipe.steps is None else max(1, round(recipe.steps * factor))
    epochs = None if recipe.epochs is None else recipe.epochs * factor
    return replace(recipe, name=f"{recipe.name} x {factor:g}", steps=steps, epochs=epochs, evaluations=1)


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor on the peak learning rate: linear up over `warmup` of the steps, then half a cosine to zero."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))
