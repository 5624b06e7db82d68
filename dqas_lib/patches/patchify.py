"""Stage 1 of a pool: importance, drop and reconstruction of its images, kept in the store.

The importance network is the pool's, trained on all its images.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import derive
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import Autoencoder, from_arrays, to_arrays
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe, get_recipe, train_autoencoder
from dqas_lib.patches.importance import activation, patch_importance
from dqas_lib.patches.masks import (
    AdaptiveTheta,
    check_drop,
    check_theta,
    default_patch_size,
    grid_of,
    importance_weighted_error,
    keep_mask,
    kept_share,
    largest_theta,
    neighbor_distance,
)
from dqas_lib.patches.reconstruct import check_fit, reconstruct, reconstruction_error
from dqas_lib.training.features import extract, unit_rows
from dqas_lib.training.networks import Network
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

CODE = (train, activation, train_autoencoder, reconstruction_error)


class TrainedPool(Protocol):
    """What stage 1 needs of a `pool.Pool`: its images, a network trained on them, and a place for results."""

    images: ImageSet
    seed: int
    setting: Setting
    by_id: np.ndarray
    trained: Network

    def stage(
        self, name: str, settings: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]], code: tuple[Any, ...]
    ) -> dict[str, np.ndarray]:
        """A stage's result, from the store when it is there."""
        ...


@dataclass(frozen=True)
class Patchify:
    """Which patches are dropped, and what reconstructs them.

    Args:
        theta: Fraction of patches to drop, in [0, 1) [DQ: 0.2 to 0.25], or an `AdaptiveTheta`.
        drop: Which patches go: those of the lowest "importance" [DQ; summary], or of the lowest "importance x error",
            that is importance times reconstruction error [ours].
        patch_size: Side in pixels; None: 2, 4, 8 for images of 8, 32, 64 px.
        autoencoder: A recipe (by name or given), to be trained on all the images, or a trained autoencoder.

    Raises:
        InputError: For a theta outside [0, 1), a rule or an autoencoder recipe that is not known.
    """

    theta: float | AdaptiveTheta = 0.25
    drop: str = "importance"
    patch_size: int | None = None
    autoencoder: str | AutoencoderRecipe | Autoencoder = "small"

    def __post_init__(self) -> None:
        check_drop(self.drop)
        if not isinstance(self.theta, AdaptiveTheta):
            check_theta(self.theta)
        if isinstance(self.autoencoder, str | AutoencoderRecipe):
            object.__setattr__(self, "autoencoder", get_recipe(self.autoencoder))


@dataclass(frozen=True, eq=False)
class Patched:
    """Images after stage 1.

    images: dropped patches painted in; kept: (N, G) bool; importance: (N, G) float32 of their patches; patch_size in
    pixels; autoencoder: None when nothing was dropped.
    """

    images: ImageSet
    kept: np.ndarray
    importance: np.ndarray
    patch_size: int
    autoencoder: Autoencoder | None

    @property
    def kept_share(self) -> float:
        """Share of all patches that is kept: stored ratio = image ratio x this."""
        return float(self.kept.mean()) if self.kept.size else 1.0


@dataclass(frozen=True, eq=False)
class Patchifier:
    """Stage 1 on the images of a pool.

    Args:
        pool: Whose images are reduced, and whose network's importance decides.
        plan: Which patches are dropped, and what reconstructs them.

    Raises:
        InputError: When the plan does not fit the images, at once.
    """

    pool: TrainedPool
    plan: Patchify = dataclasses.field(default_factory=Patchify)

    def __post_init__(self) -> None:
        size, coder = self.pool.images.size, self.plan.autoencoder
        grid_of(size, self.patch_size)
        if not isinstance(coder, AutoencoderRecipe):
            check_fit(coder, size)
            if coder.patch_size != self.patch_size:
                raise InputError(
                    f"the autoencoder's patches have {coder.patch_size} px, "
                    f"patch_size is {self.patch_size}: give equal ones"
                )

    @cached_property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        ready = None if isinstance(self.plan.autoencoder, AutoencoderRecipe) else self.plan.autoencoder.patch_size
        return self.plan.patch_size or ready or default_patch_size(self.pool.images.size)

    @property
    def settings(self) -> dict[str, Any]:
        """Theta, rule, patch size and autoencoder as plain values."""
        theta = (
            dataclasses.asdict(self.plan.theta)
            if isinstance(self.plan.theta, AdaptiveTheta)
            else float(self.plan.theta)
        )
        coder = self.plan.autoencoder
        described = dataclasses.asdict(coder) if isinstance(coder, AutoencoderRecipe) else coder.describe()
        return {"theta": theta, "drop": self.plan.drop, "patch_size": int(self.patch_size), "autoencoder": described}

    @cached_property
    def importance(self) -> np.ndarray:
        """(N, G) float32 Grad-CAM++ importance, for the image's own class, of every patch."""
        images = self.pool.images

        def compute() -> dict[str, np.ndarray]:
            found = activation(self.pool.trained, images.images, images.labels, device=self.pool.setting.device)
            return {"importance": patch_importance(found.maps, images.size, self.patch_size)}

        return self.pool.stage("importance", {"patch_size": int(self.patch_size)}, compute, (train, activation))[
            "importance"
        ]

    @cached_property
    def coder(self) -> Autoencoder:
        """The autoencoder, trained when a recipe was given."""
        if not isinstance(self.plan.autoencoder, AutoencoderRecipe):
            return self.plan.autoencoder
        pool = self.pool

        def compute() -> dict[str, np.ndarray]:
            trained = train_autoencoder(
                pool.images.take(pool.by_id),
                patch_size=self.patch_size,
                recipe=self.plan.autoencoder,
                importance=self.importance[pool.by_id],
                seed=derive(pool.seed, "autoencoder"),
                device=pool.setting.device,
                progress=pool.setting.progress,
            )
            return to_arrays(trained.autoencoder)

        return from_arrays(pool.stage("autoencoder", self._coder_settings, compute, CODE[:3]))

    @property
    def _coder_settings(self) -> dict[str, Any]:
        return {"patch_size": int(self.patch_size), "recipe": dataclasses.asdict(self.plan.autoencoder)}

    @cached_property
    def error(self) -> np.ndarray:
        """(N, G) float32 reconstruction error of every patch, mean squared; see `autoencoder.reconstruction_error`."""
        pool = self.pool

        def compute() -> dict[str, np.ndarray]:
            error = np.empty_like(self.importance)
            pixels = pool.images.images[pool.by_id]  # the order decides the batches, and they the last bits
            error[pool.by_id] = reconstruction_error(
                self.coder, pixels, device=pool.setting.device, progress=pool.setting.progress
            )
            return {"error": error}

        if isinstance(self.plan.autoencoder, AutoencoderRecipe):
            return pool.stage("reconstruction error", self._coder_settings, compute, CODE)["error"]
        return compute()["error"]

    @cached_property
    def score(self) -> np.ndarray:
        """(N, G) float32, by which patches are dropped, the lowest first: importance, or importance x error."""
        return (
            self.importance
            if self.plan.drop == "importance"
            else importance_weighted_error(self.importance, self.error)
        )

    @cached_property
    def kept(self) -> np.ndarray:
        """(N, G) bool, True where a patch is kept."""
        if not isinstance(self.plan.theta, AdaptiveTheta):
            return keep_mask(self.score, self.plan.theta)

        def compute() -> dict[str, np.ndarray]:
            return {"theta": self._theta_of_images(self.plan.theta)}

        if isinstance(self.plan.autoencoder, AutoencoderRecipe):
            theta = self.pool.stage("adaptive theta", self.settings, compute, (*CODE, extract, Patchifier))["theta"]
        else:
            theta = compute()["theta"]
        return keep_mask(self.score, theta)

    def _theta_of_images(self, rule: AdaptiveTheta) -> np.ndarray:
        """(N,) theta of every image by the rule, in the feature space of the importance network."""
        pool = self.pool
        original = unit_rows(extract(pool.trained, pool.images.images, device=pool.setting.device))
        shifts = []
        for theta in rule.thetas:
            pixels = self._paint(np.arange(len(pool.images)), keep_mask(self.score, theta))
            features = unit_rows(extract(pool.trained, pixels, device=pool.setting.device))
            shifts.append(np.linalg.norm(features - original, axis=1))
        limits = rule.tolerance * neighbor_distance(original, pool.images.labels)[pool.images.labels]
        return largest_theta(np.stack(shifts), np.array(rule.thetas), limits)

    def share_kept(self) -> float:
        """Share of all patches that is kept, known without training anything when theta is fixed."""
        if isinstance(self.plan.theta, AdaptiveTheta):
            return float(self.kept.mean())
        return kept_share(self.plan.theta, self.pool.images.size, self.patch_size)

    def _paint(self, positions: np.ndarray, kept: np.ndarray) -> np.ndarray:
        pool = self.pool
        pixels = pool.images.images[positions]
        return reconstruct(self.coder, pixels, kept, device=pool.setting.device, progress=pool.setting.progress)

    def apply(self, positions: np.ndarray | None = None) -> Patched:
        """Stage 1 of the images at these positions, in this order; None: of all."""
        pool = self.pool
        if positions is None:
            positions = np.arange(len(pool.images))
        images, kept = pool.images.take(positions), self.kept[positions]
        importance = self.importance[positions]
        if kept.all():
            return Patched(images, kept, importance, self.patch_size, None)
        painted = images.with_images(self._paint(positions, kept))
        return Patched(painted, kept, importance, self.patch_size, self.coder)
