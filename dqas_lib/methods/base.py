"""What every selection method is given and gives back.

A method is a frozen dataclass: its fields are its options, so they can be read, compared and written into a result's
provenance, and a mistyped option is an error. `choose` gets a `Workbench` (the images, and work that several methods
share, done once) and a budget.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from dqas_lib.bins import Bins, make_bins
from dqas_lib.dynamics import training_dynamics
from dqas_lib.errors import InputError
from dqas_lib.gradients import Gradients
from dqas_lib.images import ImageSet
from dqas_lib.networks import Network, make_network
from dqas_lib.seeds import derive
from dqas_lib.store import Store
from dqas_lib.training import Recipe, TrainingResult, extract, get_recipe, scaled, train

NEEDS = ("labels", "features", "logits", "gradients", "dynamics", "network")


@dataclass(frozen=True, eq=False)
class Choice:
    """What a method chose: (B,) positions in the workbench's images, loss weights where it defines them, and arrays
    that tell how it came about (`trace`, for notebooks and explorers)."""

    positions: np.ndarray
    weights: np.ndarray | None = None
    trace: dict[str, np.ndarray] = field(default_factory=dict)


class Method(Protocol):
    """A selection method: a frozen dataclass with a registered name and what it `needs` of the workbench (of NEEDS)."""

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

    images: the training images; seed: of the selection; network, recipe: the learner's; device: where it
    is trained; store: None keeps nothing; progress: show bars. `seconds` collects the time spent by stage.
    given: shared work done elsewhere, name -> array with a row an image: "features" (N, d), "logits" (N, C), and of the
    dynamics "correct", "margin", "el2n", "grand", each (E, N). Then nothing is trained here, and what is not in it is
    missing. labelled: False for a pool whose labels are unknown.

    Shared work is done on the images in the order of their ids, so that it does not depend on the order they come in.
    Raises InputError when given work has not a row an image.
    """

    images: ImageSet
    seed: int = 0
    network: str = "small_cnn"
    recipe: Recipe | str = "cpu"
    device: str = "cpu"
    store: Store | None = None
    progress: bool = False
    given: Mapping[str, np.ndarray] | None = None
    labelled: bool = True
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in (self.given or {}).items():
            axis = 0 if name in ("features", "logits") else 1
            if np.ndim(values) != 2 or np.shape(values)[axis] != len(self.images):
                expected = f"({len(self.images)}, ...)" if axis == 0 else f"(moments, {len(self.images)})"
                raise InputError(f"given {name!r} must be {expected}; got {np.shape(values)}")

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

    @cached_property
    def by_id(self) -> np.ndarray:
        """(N,) positions in the order of the ids."""
        return np.argsort(self.images.ids, kind="stable")

    @property
    def available(self) -> tuple[str, ...]:
        """What of NEEDS there is, or can be computed here."""
        if self.given is None:
            return NEEDS if self.labelled else ()
        there = {"labels": self.labelled, "features": "features" in self.given, "logits": "logits" in self.given}
        there["gradients"] = all(there.values())
        there["dynamics"] = {"correct", "margin", "el2n", "grand"} <= set(self.given)
        return tuple(name for name in NEEDS if there.get(name))

    def check(self, method: Method, *also: str) -> None:
        """InputError that names what the method needs and the workbench does not have."""
        missing = [name for name in (*getattr(method, "needs", ()), *also) if name not in self.available]
        if missing:
            raise InputError(
                f"method {method.name!r} needs {', '.join(missing)}, which the workbench does not have: "
                f"it has {', '.join(self.available) or 'nothing but images'}"
            )

    def stage(self, name: str, settings: dict[str, Any], compute) -> dict[str, np.ndarray]:
        """A stage's result, from the store when it is there; its seconds are added up under `name`."""
        started = time.perf_counter()
        if self.store is None or self.given is not None:
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

    def _look(self, network: Network) -> dict[str, np.ndarray]:
        """Features (N, d) and logits (N, C) of all the images by a trained network, float32."""
        features = np.empty((len(self.images), network.head.in_features), dtype=np.float32)
        features[self.by_id] = extract(network, self.images.images[self.by_id], device=self.device)
        head = network.head
        logits = features @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()
        return {"features": features, "logits": logits}

    @cached_property
    def reference(self) -> dict[str, np.ndarray]:
        """Features (N, d) and logits (N, C), float32, by a network trained on all the images, and its weights."""
        if self.given is not None:
            return dict(self.given)

        def compute() -> dict[str, np.ndarray]:
            network = self.train(self.images.take(self.by_id), seed=self.seed).network
            weights = {f"weights.{key}": value.cpu().numpy() for key, value in network.state_dict().items()}
            return {**self._look(network), **weights}

        return self.stage("features", {}, compute)

    @property
    def features(self) -> np.ndarray:
        """(N, d) float32 penultimate activations by a network trained on all the images."""
        return self._shared("features")

    @property
    def logits(self) -> np.ndarray:
        """(N, C) float32 logits by a network trained on all the images."""
        return self._shared("logits")

    def _shared(self, name: str) -> np.ndarray:
        if name not in self.reference:
            raise InputError(f"the workbench was given no {name}: it has {', '.join(self.reference)}")
        return self.reference[name]

    @cached_property
    def gradients(self) -> Gradients:
        """Last-layer gradients of the network trained on all the images, in factors."""
        return Gradients.of(self.features, self.logits, self.images.labels)

    @cached_property
    def trained(self) -> Network:
        """The network trained on all the images, in evaluation mode, on the bench's device."""
        network = make_network(self.network, self.images.n_classes, self.images.size, self.seed)
        weights = {key[8:]: value for key, value in self.reference.items() if key.startswith("weights.")}
        if not weights:
            raise InputError("the workbench was given features, not a network")
        network.load_state_dict({key: torch.as_tensor(value) for key, value in weights.items()})
        return network.to(self.device).eval()

    def dynamics(self, *, run: int = 0, scale: float = 1.0, moments: int = 20) -> dict[str, np.ndarray]:
        """Training dynamics on all the images: "step" (E,), "correct", "margin", "el2n", "grand", each (E, N).

        run: which of several networks; scale: factor on the recipe's length; moments: E. See `dqas_lib.dynamics`.
        """
        if self.given is not None:
            return dict(self.given)

        def compute() -> dict[str, np.ndarray]:
            found = training_dynamics(
                self.images.take(self.by_id),
                network=self.network,
                recipe=scaled(self.recipe, scale),
                seed=derive(self.seed, "dynamics", run),
                device=self.device,
                moments=moments,
                progress=self.progress,
            )
            back = np.argsort(self.by_id)
            return {name: values if name == "step" else values[:, back] for name, values in found.items()}

        return self.stage("dynamics", {"run": run, "scale": scale, "moments": moments}, compute)

    def held_out(self, fraction: float) -> dict[str, np.ndarray]:
        """Features and logits of all the images by a network that never saw the held-out ones, and `held` (N,) bool.

        The held-out images are those of `ImageSet.hold_out(fraction, seed)`. Given features and logits are used as
        they are.
        """
        images = self.images
        _, held = images.hold_out(fraction, self.seed)
        mask = np.zeros(len(images), dtype=bool)
        mask[images.positions(held.ids)] = True
        if self.given is not None:
            return {**self.reference, "held": mask}

        def compute() -> dict[str, np.ndarray]:
            seen = self.by_id[~mask[self.by_id]]
            return {**self._look(self.train(images.take(seen), seed=self.seed).network), "held": mask}

        return self.stage("held out", {"fraction": fraction}, compute)

    def bins(self, n_bins: int) -> Bins:
        """Recursive GraphCut bins of every class in the space of `features`."""

        def compute() -> dict[str, np.ndarray]:
            order = self.by_id
            bins = make_bins(
                self.features[order], self.images.labels[order], n_bins, device=self.device, progress=self.progress
            )
            back = np.argsort(order)
            return {"bin": bins.bin[back], "rank": bins.rank[back]}

        found = self.stage("bins", {"n_bins": n_bins}, compute)
        return Bins(found["bin"], found["rank"], n_bins)
