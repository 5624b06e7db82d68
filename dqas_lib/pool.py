"""The pool: the images a method selects from, and work on them that several methods share, done once.

Shared work is done on the images in the order of their ids, so that it does not depend on the order they come in, and
kept in the setting's store.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from dqas_lib.bins.bins import Bins, make_bins
from dqas_lib.core.checks import check_fields
from dqas_lib.core.digests import canonical, is_ours
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import check_seed, derive
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.dynamics import look, training_dynamics
from dqas_lib.training.features import extract, head_logits
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.networks import Network, make_network
from dqas_lib.training.recipes import scaled
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import TrainingResult, train

NEEDS = ("labels", "features", "logits", "gradients", "dynamics", "network")
DYNAMICS = ("correct", "margin", "el2n", "grand")


@dataclass(frozen=True, eq=False)
class Pool:
    """The images a method selects from, and shared work on them.

    Args:
        seed: Of the selection: every random draw derives from it.
        setting: Network, recipe and device of the learner, and the store.
        given: Shared work done elsewhere: "features" (N, d), "logits" (N, C), DYNAMICS, each (E, N). Then nothing is
            trained here, and what is not in it is missing.
        source: The pool that these images are reconstructed from: its network gives the features, and none is trained.
        labeled: False for a pool whose labels are unknown.
        seconds: Collects the time spent, by stage.
        made: Collects the results of stages, so that selections from one pool share them without a store.

    Raises:
        InputError: When given work has not a row per image, or the seed is no whole number >= 0.
    """

    images: ImageSet
    seed: int = 0
    setting: Setting = field(default_factory=Setting)
    given: Mapping[str, np.ndarray] | None = None
    source: "Pool | None" = None
    labeled: bool = True
    seconds: dict[str, float] = field(default_factory=dict)
    made: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_seed(self.seed)
        object.__setattr__(self, "setting", self.setting.suited_to(self.images))
        for name, values in (self.given or {}).items():
            axis = 0 if name in ("features", "logits") else 1
            if np.ndim(values) != 2 or np.shape(values)[axis] != len(self.images):
                expected = f"({len(self.images)}, ...)" if axis == 0 else f"(checkpoints, {len(self.images)})"
                raise InputError(f"given {name!r} must be {expected}; got {np.shape(values)}")

    @cached_property
    def key(self) -> dict[str, Any]:
        """What shared work depends on, for store keys and provenance."""
        source = {} if self.source is None else {"trained on": self.source.images.fingerprint()}
        return {"images": self.images.fingerprint(), "seed": self.seed, **self.setting.key, **source}

    @cached_property
    def by_id(self) -> np.ndarray:
        """(N,) positions in the order of the ids."""
        return np.argsort(self.images.ids, kind="stable")

    @cached_property
    def _moves(self) -> tuple[Any, Any]:
        """Into the order of the ids, and back: positions, or slices, which copy nothing, for images that lie in it."""
        in_order = np.array_equal(self.by_id, np.arange(len(self.images)))
        return (slice(None), slice(None)) if in_order else (self.by_id, np.argsort(self.by_id))

    @property
    def available(self) -> tuple[str, ...]:
        """What of NEEDS there is, or can be computed here."""
        if self.given is None:
            return NEEDS if self.labeled else ()
        there = {"labels": self.labeled, "features": "features" in self.given, "logits": "logits" in self.given}
        there["gradients"] = all(there.values())
        there["dynamics"] = set(DYNAMICS) <= set(self.given)
        return tuple(name for name in NEEDS if there.get(name))

    def check(self, method: Any, *also: str) -> None:
        """InputError that names what the method needs and the pool does not have."""
        missing = [name for name in (*getattr(method, "needs", ()), *also) if name not in self.available]
        if missing:
            raise InputError(
                f"method {method.name!r} needs {', '.join(missing)}, which the pool does not have: "
                f"it has {', '.join(self.available) or 'nothing but images'}"
            )

    def stage(
        self, name: str, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]], code: tuple[Any, ...]
    ) -> dict[str, np.ndarray]:
        """A stage's result, made once; from the store when it is there. Its seconds are added up under `name`.

        Args:
            settings: What the result depends on, beside `key`.
            compute: Gives the result.
            code: What computes it (`Store.load_or_compute`); nothing is kept of code outside this library.
        """
        started, store, key = time.perf_counter(), self.setting.store, {**self.key, **settings}
        label, kept = f"{name} {canonical(key)}", self.given is None and all(map(is_ours, code))
        if kept and label in self.made:
            return self.made[label]
        if store is None or not kept:
            result = {key: np.asarray(value) for key, value in compute().items()}
        else:
            result = store.load_or_compute(name, key, compute, device=key["device"], code=code)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        if kept:
            self.made[label] = result
        return result

    def train(
        self, images: ImageSet, *, seed: int, evaluate_on: ImageSet | None = None, scale: float | None = None
    ) -> TrainingResult:
        """Train the setting's network on some images; scale: factor on the recipe's length."""
        setting = self.setting if scale is None else self.setting.replace(recipe=scaled(self.setting.recipe, scale))
        return train(images, setting=setting, seed=seed, evaluate_on=evaluate_on)

    def outputs(self, network: Network) -> dict[str, np.ndarray]:
        """Features (N, d) and logits (N, C) of all the images by a trained network, float32."""
        images = self.images
        features = look(network, images.images, self.by_id, side=images.size, device=self.setting.device)
        return {"features": features, "logits": head_logits(network, features)}

    @cached_property
    def reference(self) -> dict[str, np.ndarray]:
        """Features (N, d) and logits (N, C), float32, by a network trained on all the images, and its weights.

        Of reconstructed images: by the network trained on the originals, which has rated their patches too.
        """
        if self.given is not None:
            return dict(self.given)

        def compute() -> dict[str, np.ndarray]:
            if self.source is None:
                network = self.train(self.images.take(self._moves[0]), seed=self.seed).network
            else:
                network = self.source.trained
            weights = {f"weights.{key}": value.cpu().numpy() for key, value in network.state_dict().items()}
            return {**self.outputs(network), **weights}

        return self.stage("features", {}, compute, (train, extract))

    def _shared(self, name: str) -> np.ndarray:
        if name not in self.reference:
            raise InputError(f"the pool was given no {name}: it has {', '.join(self.reference)}")
        return self.reference[name]

    @property
    def features(self) -> np.ndarray:
        """(N, d) float32 penultimate activations by a network trained on all the images."""
        return self._shared("features")

    @property
    def logits(self) -> np.ndarray:
        """(N, C) float32 logits by a network trained on all the images."""
        return self._shared("logits")

    @cached_property
    def gradients(self) -> Gradients:
        """Last-layer gradients of the network trained on all the images, in factors."""
        return Gradients.of(self.features, self.logits, self.images.labels)

    @cached_property
    def trained(self) -> Network:
        """The network trained on all the images, in evaluation mode, on the setting's device."""
        network = make_network(self.setting.network, self.images.n_classes, self.images.size, self.seed)
        weights = {key[8:]: value for key, value in self.reference.items() if key.startswith("weights.")}
        if not weights:
            raise InputError("the pool was given features, not a network")
        network.load_state_dict({key: torch.as_tensor(value) for key, value in weights.items()})
        return network.to(self.setting.device).eval()

    def dynamics(
        self, *, run: int = 0, scale: float = 1.0, checkpoints: int = 20, small: bool = False, with_logits: bool = False
    ) -> dict[str, np.ndarray]:
        """Training dynamics on all the images, as `training_dynamics` gives them.

        Args:
            run: Which of several networks.
            scale: Factor on the recipe's length.
            checkpoints: E.
            with_logits: Whether to give the logits after the last step, too.
            small: Train, and look at the images, at the smallest side of the recipe's progressive resizing throughout.
        """
        if self.given is not None:
            return dict(self.given)
        recipe = self.setting.recipe

        def compute() -> dict[str, np.ndarray]:
            to, back = self._moves
            images, shorter = self.images.take(to), scaled(recipe, scale)
            if small and shorter.sides:
                shorter = replace(shorter, sides=((shorter.sides[0][0], 1.0),))
            setting = self.setting.replace(recipe=shorter)
            seed = derive(self.seed, "dynamics", run)
            values = training_dynamics(
                images, setting=setting, seed=seed, checkpoints=checkpoints, with_logits=with_logits
            )
            by_image: dict[str, Any] = {name: values[name][back] for name in ("features", "logits") if name in values}
            return {**by_image, "step": values["step"], **{name: values[name][:, back] for name in DYNAMICS}}

        settings = {"run": run, "scale": scale, "checkpoints": checkpoints, "small": small, "with_logits": with_logits}
        return self.stage("dynamics", settings, compute, (training_dynamics,))

    def held_out(self, fraction: float) -> dict[str, np.ndarray]:
        """Features and logits of all the images by a network that never saw the held-out ones, and `held` (N,) bool.

        The held-out images are those of `ImageSet.hold_out(fraction, seed)`; given work is used as it is.
        """
        mask = np.isin(self.images.ids, self.images.hold_out(fraction, self.seed)[1].ids)
        if self.given is not None:
            return {**self.reference, "held": mask}

        def compute() -> dict[str, np.ndarray]:
            seen = self.by_id[~mask[self.by_id]]
            return {**self.outputs(self.train(self.images.take(seen), seed=self.seed).network), "held": mask}

        return self.stage("held out", {"fraction": fraction}, compute, (train, extract))

    def bins(self, n_bins: int) -> Bins:
        """Recursive GraphCut bins of every class in the space of `features`."""

        def compute() -> dict[str, np.ndarray]:
            (to, back), setting = self._moves, self.setting
            features, labels = self.features[to], self.images.labels[to]
            bins = make_bins(features, labels, n_bins, device=setting.device, progress=setting.progress)
            return {"bin": bins.bin[back], "rank": bins.rank[back]}

        arrays = self.stage("bins", {"n_bins": n_bins}, compute, (train, extract, make_bins))
        return Bins(arrays["bin"], arrays["rank"], n_bins)
