"""The front door: check what is given, call the stages in order, check what they give back."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.checks import check_ratio, one_of
from dqas_lib.core.errors import InputError
from dqas_lib.core.files import write_atomically
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.base import Method, checked, get_method, options
from dqas_lib.patches.autoencoder import Autoencoder
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.masks import AdaptiveTheta
from dqas_lib.patches.patchify import Patched, Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.training.setting import Setting

ORDERS = ("none", "first", "last")
RATIO_KINDS = ("image", "stored")


@dataclass(frozen=True, eq=False)
class Selection:
    """The selected images and how they were selected.

    Args:
        images: The selected images, in the order selected, with dropped patches reconstructed.
        ratio: The ratio asked for, of the kind `ratio_kind`: "image" or "stored".
        n_pool: N, the images selected from.
        settings: Method options, seed, network, recipe, device, patchify.
        weights: (B,) loss weights, where the method defines them.
        trace: The method's own arrays over the pool, for notebooks and explorers.
        kept: (B, G) bool, True where a patch is kept; None when no patch was dropped, and so is `autoencoder`.
        autoencoder: What reconstructed the other patches.
    """

    images: ImageSet
    ratio: float
    n_pool: int
    settings: Mapping[str, Any]
    weights: np.ndarray | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    trace: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    ratio_kind: str = "image"
    kept: np.ndarray | None = field(default=None, repr=False)
    autoencoder: Autoencoder | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> np.ndarray:
        """(B,) ids of the selected images, in the order selected."""
        return self.images.ids

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of selected images of each class."""
        return self.images.class_counts

    @property
    def image_ratio(self) -> float:
        """Images kept / N."""
        return len(self) / self.n_pool

    @property
    def stored_ratio(self) -> float:
        """Image ratio x fraction of patches kept."""
        return self.image_ratio * (1.0 if self.kept is None else float(self.kept.mean()))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the compressed set, to be opened by `open_compressed`; gives its folder.

        InputError when the path exists, unless it is a compressed set and `overwrite` is given.
        """
        ratios = ("ratio", "ratio_kind", "image_ratio", "stored_ratio")
        settings = {**self.settings, **{name: getattr(self, name) for name in ratios}}
        return save_compressed(
            path, self.images, kept=self.kept, autoencoder=self.autoencoder, settings=settings, overwrite=overwrite
        )

    def save_indices(self, path: str | Path, pool: ImageSet | None = None) -> Path:
        """Write (B,) int64 positions as .npy, the index file that DQ's and DeepCore's loaders take; gives its path.

        Args:
            pool: The images selected from: positions are those in it. None: positions in the official training file,
                which the ids of digits and CIFAR are; InputError for folders of images, whose ids are paths.
        """
        if pool is None and self.ids.dtype.kind not in "iu":
            raise InputError(f"ids like {self.ids[0]!r} are no positions: give pool=, the images selected from")
        positions = self.ids if pool is None else pool.positions(self.ids)
        buffer, path = io.BytesIO(), Path(path)
        np.save(buffer, positions.astype(np.int64), allow_pickle=False)
        write_atomically(path, buffer.getvalue())
        return path


@overload
def quantize(images: ImageSet, ratio: float, **options: Any) -> Selection: ...


@overload
def quantize(images: ImageSet, ratio: Sequence[float], **options: Any) -> list[Selection]: ...


def quantize(  # type: ignore[misc]  # the overloads say which ratio gives what, the options stand here alone
    images: ImageSet,
    ratio: float | Sequence[float],
    *,
    method: str | Method = "dqas",
    seed: int = 0,
    setting: Setting | None = None,
    patchify: str | None = None,
    theta: float | AdaptiveTheta = 0.25,
    drop: str = "importance",
    patch_size: int | None = None,
    ratio_kind: str = "image",
    autoencoder: str | AutoencoderRecipe | Autoencoder = "auto",
) -> Selection | list[Selection]:
    """Select a part of the images, and drop a part of their patches.

    Args:
        images: N images to select from.
        ratio: In (0, 1], of the kind `ratio_kind`. Several ratios share all the work they can, and give a list.
        method: A registered name, or any object with a `name` and `select(pool, budget)`, such as DQAS(bins=5).
        seed: Of every random draw. Equal arguments on the same machine give equal ids.
        setting: Network, recipe and device of what is trained, and the store that keeps shared work between calls.
        patchify: "first" drops and reconstructs the patches of all images, then selects by the features of what will be
            trained on [abstract: DQAS], given by the network that rated the patches [ours]; "last" selects originals,
            then drops patches of the selected ones [DQ]; "none" drops none. None: as the method says ("dqas": first),
            and "none" where it says nothing.
        theta, drop, patch_size, autoencoder: As in `patches.Patchify`, the same in both orders: the importance network
            and the autoencoder are trained on all the original images.
        ratio_kind: "image": images kept / N, round(ratio * N) are selected; "stored": image ratio x fraction of patches
            kept, round(ratio * N / fraction) are selected, 13.33 % of the images at stored ratio 10 % and theta 25 %.

    Returns:
        A `Selection`, or for several ratios a list of them in their order.

    Raises:
        InputError: For an argument that cannot be used, before any work; for a method that gives something else.
    """
    several = isinstance(ratio, Sequence | np.ndarray) and not isinstance(ratio, str)
    ratios: list[Any] = list(cast(Any, ratio)) if several else [ratio]
    if several and not ratios:
        raise InputError("ratio must be a number in (0, 1], or several of them; got []")
    for value in ratios:
        check_ratio(value, len(images))
    method = get_method(method)
    order = one_of("patchify", order_of(method) if patchify is None else patchify, ORDERS)
    one_of("ratio_kind", ratio_kind, RATIO_KINDS)
    plan = Patchify(theta, drop, patch_size, autoencoder)
    pool = Pool(images, seed=seed, setting=setting or Setting())
    stage = None if order == "none" else Patchifier(pool, plan)
    fraction = 1.0 if stage is None or ratio_kind == "image" else stage.kept_fraction
    budgets = [images_at(value, fraction, len(images)) for value in ratios]
    started = time.perf_counter()
    reduced = stage.apply() if stage and order == "first" else None
    if reduced is not None:
        pool = replace(pool, images=reduced.images, source=pool, made={})
    described = {"order": order, **(stage.settings if stage else {})}
    selections = []
    for value, budget in zip(ratios, budgets, strict=True):
        choice = checked(method, pool, budget)
        selected, kept, coder = pool.images.take(choice.positions), None, None
        if reduced is not None:
            kept, coder = reduced.kept[choice.positions], reduced.autoencoder
        elif stage is not None:
            after = stage.apply(choice.positions)
            selected, kept, coder = after.images, after.kept, after.autoencoder
        selections.append(
            Selection(
                images=selected,
                ratio=float(value),
                n_pool=len(images),
                settings={**pool.key, "images": images.fingerprint(), "method": options(method), "patchify": described},
                weights=choice.weights,
                seconds={**pool.seconds, "all": time.perf_counter() - started},
                trace=choice.trace,
                ratio_kind=ratio_kind,
                kept=None if coder is None else kept,
                autoencoder=coder,
            )
        )
    return selections if several else selections[0]


def order_of(method: Any) -> str:
    """When a method has patches dropped, unless told otherwise: "none" where it does not say."""
    return str(getattr(method, "patchify", "none"))


def patchify(
    images: ImageSet,
    *,
    theta: float | AdaptiveTheta = 0.25,
    drop: str = "importance",
    patch_size: int | None = None,
    autoencoder: str | AutoencoderRecipe | Autoencoder = "auto",
    seed: int = 0,
    setting: Setting | None = None,
) -> Patched:
    """Drop the least important patches of all images and reconstruct them, without selecting any image.

    Arguments are as in `quantize`, with which it shares what is in the store.
    """
    pool = Pool(images, seed=seed, setting=setting or Setting())
    return Patchifier(pool, Patchify(theta, drop, patch_size, autoencoder)).apply()


def images_at(ratio: float, fraction: float, n_images: int) -> int:
    """Images to select, round(ratio * N / fraction): of a stored ratio, with this fraction of the patches kept."""
    if ratio > fraction + 1e-9:
        raise InputError(
            f"a stored ratio of {ratio!r} needs more images than there are: with {fraction:.4g} of the patches kept, "
            f"at most {fraction:.4g} can be stored"
        )
    return check_ratio(min(ratio / fraction, 1.0), n_images)
