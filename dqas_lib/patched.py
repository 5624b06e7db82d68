"""Stage 1 in one call: importance, drop and reconstruction of a data set, kept in the store.

reduced = patchify(images, theta=0.25)
reduced.images, reduced.kept, reduced.importance, reduced.autoencoder
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dqas_lib.autoencoder import (
    Autoencoder,
    AutoencoderRecipe,
    check_fit,
    from_arrays,
    get_recipe,
    painting_error,
    reconstruct,
    to_arrays,
    train_autoencoder,
)
from dqas_lib.errors import InputError
from dqas_lib.features import unit_rows
from dqas_lib.images import ImageSet
from dqas_lib.methods.base import Workbench
from dqas_lib.patches import (
    AdaptiveTheta,
    activation,
    check_drop,
    check_theta,
    damage,
    default_patch_size,
    grid_of,
    keep_mask,
    kept_share,
    largest_theta,
    neighbour_distance,
    patch_importance,
)
from dqas_lib.seeds import check_seed, derive
from dqas_lib.store import Store
from dqas_lib.training import Recipe, check_device, extract
from dqas_lib.training import get_recipe as get_training_recipe


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


def patchify(
    images: ImageSet,
    *,
    theta: float | AdaptiveTheta = 0.25,
    patch_size: int | None = None,
    autoencoder: "str | AutoencoderRecipe | Autoencoder" = "small",
    drop: str = "importance",
    seed: int = 0,
    network: str = "small_cnn",
    recipe: str | Recipe = "cpu",
    device: str = "cpu",
    store: Store | None = None,
    progress: bool = False,
) -> Patched:
    """Train the importance network and the autoencoder on the images, drop the least important patches, paint them in.

    Arguments as in `quantize`, with which it shares what is in the store. The images given are not changed.
    """
    check_device(device)
    bench = Workbench(
        images,
        seed=check_seed(seed),
        network=network,
        recipe=get_training_recipe(recipe),
        device=device,
        store=store,
        progress=progress,
    )
    return Patchifier(bench, theta, patch_size, autoencoder, drop).apply()


@dataclass(frozen=True, eq=False)
class Patchifier:
    """Stage 1 on a workbench's images: the importance network is the workbench's, trained on all of them.

    theta: share of patches to drop, in [0, 1), or an `AdaptiveTheta`; patch_size: None for the default of the size;
    autoencoder: a recipe (by name or given), to be trained on all the images, or a ready one; drop: which patches go,
    those of the lowest "importance" [DQ; paper], or of the lowest "damage", importance x painting error [ours].
    Raises InputError for values that do not fit the images, at once.
    """

    bench: Workbench
    theta: float | AdaptiveTheta = 0.25
    patch_size: int | None = None
    autoencoder: "str | AutoencoderRecipe | Autoencoder" = "small"
    drop: str = "importance"

    def __post_init__(self) -> None:
        size = self.bench.images.size
        check_drop(self.drop)
        if not isinstance(self.theta, AdaptiveTheta):
            check_theta(self.theta)
        if self.patch_size is None:
            ready = None if isinstance(self.autoencoder, str | AutoencoderRecipe) else self.autoencoder.patch_size
            object.__setattr__(self, "patch_size", ready or default_patch_size(size))
        grid_of(size, self.patch_size)
        if isinstance(self.autoencoder, str | AutoencoderRecipe):
            object.__setattr__(self, "autoencoder", get_recipe(self.autoencoder))
        else:
            check_fit(self.autoencoder, size)
            if self.autoencoder.patch_size != self.patch_size:
                raise InputError(
                    f"the autoencoder's patches have {self.autoencoder.patch_size} px, "
                    f"patch_size is {self.patch_size}: give equal ones"
                )

    @property
    def settings(self) -> dict[str, Any]:
        """Theta, rule, patch size and autoencoder as plain values."""
        theta = dataclasses.asdict(self.theta) if isinstance(self.theta, AdaptiveTheta) else float(self.theta)
        coder = self.autoencoder
        described = dataclasses.asdict(coder) if isinstance(coder, AutoencoderRecipe) else coder.describe()
        return {"theta": theta, "drop": self.drop, "patch_size": int(self.patch_size), "autoencoder": described}

    @cached_property
    def importance(self) -> np.ndarray:
        """(N, G) float32 Grad-CAM++ importance, for the image's own class, of every patch."""
        images = self.bench.images

        def compute() -> dict[str, np.ndarray]:
            found = activation(self.bench.trained, images.images, images.labels, device=self.bench.device)
            return {"importance": patch_importance(found.maps, images.size, self.patch_size)}

        return self.bench.stage("importance", {"patch_size": int(self.patch_size)}, compute)["importance"]

    @cached_property
    def coder(self) -> Autoencoder:
        """The autoencoder, trained when a recipe was given."""
        if not isinstance(self.autoencoder, AutoencoderRecipe):
            return self.autoencoder
        bench = self.bench

        def compute() -> dict[str, np.ndarray]:
            trained = train_autoencoder(
                bench.images.take(bench.by_id),
                patch_size=self.patch_size,
                recipe=self.autoencoder,
                importance=self.importance[bench.by_id],
                seed=derive(bench.seed, "autoencoder"),
                device=bench.device,
                progress=bench.progress,
            )
            return to_arrays(trained.autoencoder)

        return from_arrays(bench.stage("autoencoder", self._coder_settings, compute))

    @property
    def _coder_settings(self) -> dict[str, Any]:
        return {"patch_size": int(self.patch_size), "recipe": dataclasses.asdict(self.autoencoder)}

    @cached_property
    def error(self) -> np.ndarray:
        """(N, G) float32 painting error of every patch, mean squared; see `autoencoder.painting_error`."""
        bench = self.bench

        def compute() -> dict[str, np.ndarray]:
            error = np.empty_like(self.importance)
            pixels = bench.images.images[bench.by_id]  # the order decides the batches, and they the last bits
            error[bench.by_id] = painting_error(self.coder, pixels, device=bench.device, progress=bench.progress)
            return {"error": error}

        if isinstance(self.autoencoder, AutoencoderRecipe):
            return bench.stage("painting error", self._coder_settings, compute)["error"]
        return compute()["error"]

    @cached_property
    def score(self) -> np.ndarray:
        """(N, G) float32, by which patches are dropped, the lowest first: importance, or damage."""
        return self.importance if self.drop == "importance" else damage(self.importance, self.error)

    @cached_property
    def kept(self) -> np.ndarray:
        """(N, G) bool, True where a patch is kept."""
        if not isinstance(self.theta, AdaptiveTheta):
            return keep_mask(self.score, self.theta)

        def compute() -> dict[str, np.ndarray]:
            return {"theta": self._theta_of_images(self.theta)}

        if isinstance(self.autoencoder, AutoencoderRecipe):
            theta = self.bench.stage("adaptive theta", self.settings, compute)["theta"]
        else:
            theta = compute()["theta"]
        return keep_mask(self.score, theta)

    def _theta_of_images(self, rule: AdaptiveTheta) -> np.ndarray:
        """(N,) theta of every image by the rule, in the feature space of the importance network."""
        bench = self.bench
        original = unit_rows(extract(bench.trained, bench.images.images, device=bench.device))
        shifts = []
        for theta in rule.thetas:
            pixels = self._paint(np.arange(len(bench.images)), keep_mask(self.score, theta))
            features = unit_rows(extract(bench.trained, pixels, device=bench.device))
            shifts.append(np.linalg.norm(features - original, axis=1))
        limits = rule.tolerance * neighbour_distance(original, bench.images.labels)[bench.images.labels]
        return largest_theta(np.stack(shifts), np.array(rule.thetas), limits)

    def share_kept(self) -> float:
        """Share of all patches that is kept, known without training anything when theta is fixed."""
        if isinstance(self.theta, AdaptiveTheta):
            return float(self.kept.mean())
        return kept_share(self.theta, self.bench.images.size, self.patch_size)

    def _paint(self, positions: np.ndarray, kept: np.ndarray) -> np.ndarray:
        bench = self.bench
        pixels = bench.images.images[positions]
        return reconstruct(self.coder, pixels, kept, device=bench.device, progress=bench.progress)

    def apply(self, positions: np.ndarray | None = None) -> Patched:
        """Stage 1 of the images at these positions, in this order; None: of all."""
        bench = self.bench
        if positions is None:
            positions = np.arange(len(bench.images))
        images, kept = bench.images.take(positions), self.kept[positions]
        importance = self.importance[positions]
        if kept.all():
            return Patched(images, kept, importance, self.patch_size, None)
        painted = images.with_images(self._paint(positions, kept))
        return Patched(painted, kept, importance, self.patch_size, self.coder)
