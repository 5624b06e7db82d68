"""Patchify: importance, by the pool's network, drop and reconstruction of a pool's images, kept in its store."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from dqas_lib.core.checks import check_fields, one_of
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import derive
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches import masks
from dqas_lib.patches.autoencoder import Autoencoder, from_bytes, to_bytes
from dqas_lib.patches.autoencoder_training import AUTOENCODERS, AutoencoderRecipe, train_autoencoder
from dqas_lib.patches.importance import activation_maps, patch_importance
from dqas_lib.patches.masks import AdaptiveTheta
from dqas_lib.patches.reconstruct import check_fit, reconstruct, reconstruction_error
from dqas_lib.training.features import extract, unit_rows
from dqas_lib.training.setting import SMALL_SIDE
from dqas_lib.training.train import train

Arrays = Mapping[str, np.ndarray]
IMPORTANCE = (train, activation_maps, patch_importance)
CODER = (*IMPORTANCE, train_autoencoder)
ERROR = (*CODER, reconstruction_error)


@dataclass(frozen=True)
class Patchify:
    """Which patches are dropped, and what reconstructs them.

    Args:
        theta: Fraction of patches to drop, in [0, 1) [DQ: 0.2 to 0.25], or an `AdaptiveTheta`.
        drop: Patches of the lowest "importance" go [DQ; summary], or of the lowest "importance x error" [ours].
        patch_size: Side in pixels; None: 2, 4, 8 for images of 8, 32, 64 px.
        autoencoder: A recipe (by name or given), to be trained on all the images, or a trained autoencoder. "auto":
            the recipe "quick" for images below 24 px, "small" above.

    Raises:
        InputError: For a theta outside [0, 1), a rule or an autoencoder recipe that is not known.
    """

    theta: float | AdaptiveTheta = 0.25
    drop: str = "importance"
    patch_size: int | None = None
    autoencoder: str | AutoencoderRecipe | Autoencoder = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        one_of("drop", self.drop, masks.DROPS)
        if not isinstance(self.theta, AdaptiveTheta):
            masks.check_theta(self.theta)
        if isinstance(self.autoencoder, str) and self.autoencoder != "auto":
            object.__setattr__(self, "autoencoder", AUTOENCODERS[self.autoencoder])

    def suited_to(self, images: ImageSet) -> "Patchify":
        """This plan with the autoencoder's recipe for images of this side in place of "auto"."""
        name = "quick" if images.size < SMALL_SIDE else "small"
        return dataclasses.replace(self, autoencoder=name) if self.autoencoder == "auto" else self

    @property
    def coder(self) -> AutoencoderRecipe | Autoencoder:
        """The recipe of the autoencoder, or the trained one; of a plan that is `suited_to` its images."""
        return AUTOENCODERS[self.autoencoder] if isinstance(self.autoencoder, str) else self.autoencoder


@dataclass(frozen=True, eq=False)
class Patched:
    """Images whose dropped patches are reconstructed; kept (N, G) bool, importance (N, G) float32 of their patches."""

    images: ImageSet
    kept: np.ndarray
    importance: np.ndarray
    patch_size: int
    autoencoder: Autoencoder | None

    @property
    def kept_fraction(self) -> float:
        """Fraction of all patches that is kept: stored ratio = image ratio x this."""
        return float(self.kept.mean()) if self.kept.size else 1.0


@dataclass(frozen=True, eq=False)
class Patchifier:
    """Stage 1 on the images of a pool, by its network's importance; InputError at once when the plan does not fit."""

    pool: Any  # a `pool.Pool`, of the room above: its images, a network trained on them, a place for results
    plan: Patchify = dataclasses.field(default_factory=Patchify)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", self.plan.suited_to(self.pool.images))
        size, coder = self.pool.images.size, self.plan.coder
        masks.grid_of(size, self.patch_size)
        if not isinstance(coder, AutoencoderRecipe):
            check_fit(coder, size)
            if (px := coder.patch_size) != (other := self.patch_size):
                raise InputError(f"the autoencoder's patches have {px} px, patch_size is {other}: give equal ones")

    @cached_property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        given = None if isinstance(self.plan.coder, AutoencoderRecipe) else self.plan.coder.patch_size
        size = self.plan.patch_size if self.plan.patch_size is not None else given
        return masks.default_patch_size(self.pool.images.size) if size is None else size

    @property
    def settings(self) -> dict[str, Any]:
        """Theta, rule, patch size and autoencoder as plain values."""
        theta, coder = self.plan.theta, self.plan.coder
        return {
            "theta": dataclasses.asdict(theta) if isinstance(theta, AdaptiveTheta) else float(theta),
            "drop": self.plan.drop,
            "patch_size": int(self.patch_size),
            "autoencoder": dataclasses.asdict(coder) if isinstance(coder, AutoencoderRecipe) else coder.describe(),
        }

    def _stage(self, name: str, compute: Callable[[], Arrays], code: tuple[Any, ...], *more: str) -> Arrays:
        """A result that depends on the autoencoder: nothing is kept for one that was given, which has no name."""
        settings = {key: self.settings[key] for key in ("patch_size", "autoencoder", *more)}
        recipe = isinstance(self.plan.coder, AutoencoderRecipe)
        return self.pool.stage(name, settings, compute, code) if recipe else compute()

    @cached_property
    def importance(self) -> np.ndarray:
        """(N, G) float32 Grad-CAM++ importance, for the image's own class, of every patch."""
        pool, images = self.pool, self.pool.images

        def compute() -> Arrays:
            maps = activation_maps(pool.trained, images.images, images.labels, device=pool.setting.device)
            return {"importance": patch_importance(maps, images.size, self.patch_size)}

        return pool.stage("importance", {"patch_size": int(self.patch_size)}, compute, IMPORTANCE)["importance"]

    @cached_property
    def coder(self) -> Autoencoder:
        """The autoencoder, trained when a recipe was given."""
        pool, coder = self.pool, self.plan.coder
        if not isinstance(coder, AutoencoderRecipe):
            return coder

        def compute() -> Arrays:
            made, _ = train_autoencoder(
                pool.images.take(pool.by_id),
                patch_size=self.patch_size,
                recipe=coder,
                importance=self.importance[pool.by_id],
                seed=derive(pool.seed, "autoencoder"),
                device=pool.setting.device,
                progress=pool.setting.progress,
            )
            return {"safetensors": np.frombuffer(to_bytes(made), dtype=np.uint8)}

        return from_bytes(self._stage("autoencoder", compute, CODER)["safetensors"].tobytes())

    @cached_property
    def error(self) -> np.ndarray:
        """(N, G) float32 reconstruction error of every patch, mean squared; see `reconstruct.reconstruction_error`."""

        def compute() -> Arrays:
            order, setting = self.pool.by_id, self.pool.setting  # the order decides the batches, hence last bits
            pixels, error = self.pool.images.images[order], np.empty_like(self.importance)
            error[order] = reconstruction_error(self.coder, pixels, device=setting.device, progress=setting.progress)
            return {"error": error}

        return self._stage("reconstruction error", compute, ERROR)["error"]

    @cached_property
    def score(self) -> np.ndarray:
        """(N, G) float32, by which patches are dropped, the lowest first: importance, or importance x error."""
        if self.plan.drop == "importance":
            return self.importance
        return masks.importance_weighted_error(self.importance, self.error)

    @cached_property
    def kept(self) -> np.ndarray:
        """(N, G) bool, True where a patch is kept."""
        theta = self.plan.theta
        if not isinstance(theta, AdaptiveTheta):
            return masks.keep_mask(self.score, theta)
        code, compute = (*ERROR, extract, Patchifier), partial(self._theta_per_image, theta)
        return masks.keep_mask(self.score, self._stage("adaptive theta", compute, code, "theta", "drop")["theta"])

    def _theta_per_image(self, rule: AdaptiveTheta) -> Arrays:
        """theta: (N,) of every image by the rule, in the feature space of the importance network."""
        pool = self.pool
        original = unit_rows(extract(pool.trained, pool.images.images, device=pool.setting.device))
        shifts = []
        for theta in rule.thetas:
            pixels = self._reconstructed(np.arange(len(pool.images)), masks.keep_mask(self.score, theta))
            features = unit_rows(extract(pool.trained, pixels, device=pool.setting.device))
            shifts.append(np.linalg.norm(features - original, axis=1))
        limits = rule.tolerance * masks.neighbor_distance(original, pool.images.labels)[pool.images.labels]
        return {"theta": masks.largest_theta(np.stack(shifts), np.array(rule.thetas), limits)}

    @property
    def kept_fraction(self) -> float:
        """Fraction of all patches that is kept, known without training anything when theta is fixed."""
        if isinstance(self.plan.theta, AdaptiveTheta):
            return float(self.kept.mean())
        return masks.kept_fraction(self.plan.theta, self.pool.images.size, self.patch_size)

    def _reconstructed(self, positions: np.ndarray, kept: np.ndarray) -> np.ndarray:
        pixels, setting = self.pool.images.images[positions], self.pool.setting
        return reconstruct(self.coder, pixels, kept, device=setting.device, progress=setting.progress)

    def apply(self, positions: np.ndarray | None = None) -> Patched:
        """Stage 1 of the images at these positions, in this order; None: of all."""
        if positions is None:
            positions = np.arange(len(self.pool.images))
        images, kept, importance = self.pool.images.take(positions), self.kept[positions], self.importance[positions]
        if kept.all():
            return Patched(images, kept, importance, self.patch_size, None)
        images = images.with_images(self._reconstructed(positions, kept))
        return Patched(images, kept, importance, self.patch_size, self.coder)
