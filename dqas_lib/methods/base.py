"""What every selection method is given and gives back.

A method is a frozen dataclass: its fields are its options, so they can be read, compared and written into a result's
provenance, and a mistyped option is an error. `choose` gets a `Workbench` (the images, and work that several methods
share, done once) and a budget.
"""

import dataclasses
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from dqas_lib.bins import Bins, make_bins
from dqas_lib.images import ImageSet
from dqas_lib.store import Store
from dqas_lib.training import Recipe, TrainingResult, extract, get_recipe, train


@dataclass(frozen=True, eq=False)
class Choice:
    """What a method chose: (B,) positions in the workbench's images, loss weights where it defines them, and arrays
    that tell how it came about (`trace`, for notebooks and explorers)."""

    positions: np.ndarray
    weights: np.ndarray | None = None
    trace: dict[str, np.ndarray] = field(default_factory=dict)


class Method(Protocol):
    """A selection method: a frozen dataclass with a registered name."""

    name: ClassVar[str]

    def choose(self, bench: "Workbench", budget: int) -> Choice:
        """`budget` distinct positions, 1 <= budget <= N."""
        ...


def options(method: Method) -> dict[str, Any]:
    """A method's name and options as plain values, for store keys and provenance."""
    return {"name": method.name, **dataclasses.asdict(method)}


@dataclass(frozen=True, eq=False)
class Workbench:
    """The images a method selects from, and shared work on them, computed once and kept in the store.

    images: the training images (labels known); seed: of the selection; network, recipe: the learner's; device: where it
    is trained; store: None keeps nothing; progress: show bars. `seconds` collects the time spent by stage.
    """

    images: ImageSet
    seed: int = 0
    network: str = "small_cnn"
    recipe: Recipe | str = "cpu"
    device: str = "cpu"
    store: Store | None = None
    progress: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What shared work depends on, for store keys."""
        return {
            "images": self.images.fingerprint(),
            "seed": self.seed,
            "network": self.network,
            "recipe": dataclasses.asdict(get_recipe(self.recipe)),
            "device": str(self.device).split(":")[0],
        }

    def stage(self, name: str, settings: dict[str, Any], compute) -> dict[str, np.ndarray]:
        """A stage's result, from the store when it is there; its seconds are added up under `name`."""
        started = time.perf_counter()
        if self.store is None:
            result = {key: np.asarray(value) for key, value in compute().items()}
        else:
            result = self.store.load_or_compute(
                name, {**self.settings, **settings}, compute, device=self.settings["device"]
            )
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        return result

    def train(self, images: ImageSet, *, seed: int, evaluate_on: ImageSet | None = None, recipe=None) -> TrainingResult:
        """Train this bench's network on some images."""
        return train(
            images,
            network=self.network,
            recipe=recipe or self.recipe,
            seed=seed,
            device=self.device,
            evaluate_on=evaluate_on,
            progress=self.progress,
        )

    @cached_property
    def reference(self) -> dict[str, np.ndarray]:
        """Features (N, d) and logits (N, C), float32, by a network trained on all the images."""

        def compute() -> dict[str, np.ndarray]:
            result = self.train(self.images, seed=self.seed)
            features = extract(result.network, self.images.images, device=self.device)
            head = result.network.head
            logits = features @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()
            return {"features": features, "logits": logits}

        return self.stage("features", {}, compute)

    @property
    def features(self) -> np.ndarray:
        """(N, d) float32 penultimate activations by a network trained on all the images."""
        return self.reference["features"]

    def bins(self, n_bins: int) -> Bins:
        """Recursive GraphCut bins of every class in the space of `features`."""

        def compute() -> dict[str, np.ndarray]:
            bins = make_bins(self.features, self.images.labels, n_bins, progress=self.progress)
            return {"bin": bins.bin, "rank": bins.rank}

        found = self.stage("bins", {"n_bins": n_bins}, compute)
        return Bins(found["bin"], found["rank"], n_bins)
