"""The front door: check the ratio, call the stages in order, check what they give back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.checks import check_ratio
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
    """The chosen images and how they were chosen.

    images: the chosen images, in the order chosen, with dropped patches painted in; weights: (B,) loss weights where
    the method defines them; ratio: the ratio asked for, of the kind `ratio_kind`; n_pool: N, the images chosen from;
    settings: method options, seed, network, recipe, device, patchify; seconds: by stage; trace: the method's own arrays
    over the pool, for notebooks; kept: (B, G) bool, True where a patch is kept, and the autoencoder that painted in the
    others (both None when no patch was dropped).
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
        """(B,) ids of the chosen images, in the order chosen."""
        return self.images.ids

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of chosen images of each class."""
        return self.images.class_counts

    @property
    def image_ratio(self) -> float:
        """Images kept / N."""
        return len(self) / self.n_pool

    @property
    def stored_ratio(self) -> float:
        """Image ratio x share of patches kept."""
        return self.image_ratio * (1.0 if self.kept is None else float(self.kept.mean()))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the compressed set (see `dqas_lib.compressed`), to be opened by `open_compressed`; gives its folder.

        Raises InputError when the path exists, unless it is a compressed set and `overwrite` is given.
        """
        settings = {
            **self.settings,
            "ratio": self.ratio,
            "ratio_kind": self.ratio_kind,
            "image_ratio": self.image_ratio,
            "stored_ratio": self.stored_ratio,
        }
        return save_compressed(
            path, self.images, kept=self.kept, autoencoder=self.autoencoder, settings=settings, overwrite=overwrite
        )

    def save_indices(self, path: str | Path, pool: ImageSet | None = None) -> Path:
        """Write (B,) int64 positions as .npy, the index file that DQ's and DeepCore's loaders take.

        They are positions in the official training file (digits, CIFAR: the ids themselves), or in `pool` when it is
        given; folders of images need `pool`, since their ids are paths. Raises InputError without it.
        """
        if pool is None and self.ids.dtype.kind not in "iu":
            raise InputError(f"ids like {self.ids[0]!r} are no positions: give pool=, the images chosen from")
        positions = self.ids if pool is None else pool.positions(self.ids)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp.npy")
        try:
            np.save(temporary, positions.astype(np.int64), allow_pickle=False)
            write_atomically(path, temporary.read_bytes())
        finally:
            temporary.unlink(missing_ok=True)
        return path


def quantize(
    images: ImageSet,
    ratio: float,
    *,
    method: str | Method = "dqas",
    seed: int = 0,
    setting: Setting | None = None,
    patchify: str = "none",
    theta: float | AdaptiveTheta = 0.25,
    drop: str = "importance",
    patch_size: int | None = None,
    ratio_kind: str = "image",
    autoencoder: str | AutoencoderRecipe | Autoencoder = "small",
) -> Selection:
    """Select a part of the images, and drop a part of their patches.

    Args:
        images: N images to select from.
        ratio: In (0, 1], of the kind `ratio_kind`.
        method: A registered name, or any object with a `name` and `select(pool, budget)`, such as DQAS(rounds=4).
        seed: Of every random draw.
        setting: Network, recipe and device of what is trained, and the store where shared work (features, bins,
            autoencoder) is kept between calls.
        patchify: "first" drops and reconstructs the patches of all images, then selects in the feature space of what
            will be trained on [abstract: DQAS]; "last" selects originals, then drops patches of the selected ones [DQ];
            "none" drops none.
        theta, drop, patch_size, autoencoder: As in `patches.Patchify`. Masks and autoencoder are the same in both
            orders: the importance network and the autoencoder are trained on all the original images.
        ratio_kind: "image": images kept / N, round(ratio * N) are selected; "stored": image ratio x fraction of patches
            kept, round(ratio * N / fraction kept) are selected, 13.33 % of the images at stored ratio 10 % and theta 25
            %.

    Returns:
        Equal arguments on the same machine give equal ids.

    Raises:
        InputError: For an argument that cannot be used, before any work; for a method that does not give what was asked
            for.
    """
    check_ratio(ratio, len(images))
    method = get_method(method)
    if patchify not in ORDERS:
        raise InputError(f"patchify must be one of {', '.join(ORDERS)}; got {patchify!r}")
    if ratio_kind not in RATIO_KINDS:
        raise InputError(f"ratio_kind must be one of {', '.join(RATIO_KINDS)}; got {ratio_kind!r}")
    plan = Patchify(theta, drop, patch_size, autoencoder)
    started = time.perf_counter()
    original = Pool(images, seed=seed, setting=setting or Setting())
    stage = None if patchify == "none" else Patchifier(original, plan)
    share = 1.0 if stage is None or ratio_kind == "image" else stage.share_kept()
    budget = images_at(ratio, share, len(images))
    pool = original
    reduced = stage.apply() if patchify == "first" else None
    if reduced is not None:
        pool = replace(original, images=reduced.images, seconds=original.seconds)
    choice = checked(method, pool, budget)
    chosen, kept, coder = images.take(choice.positions), None, None
    if reduced is not None:
        chosen, kept, coder = (
            reduced.images.take(choice.positions),
            reduced.kept[choice.positions],
            reduced.autoencoder,
        )
    elif patchify == "last":
        after = stage.apply(choice.positions)
        chosen, kept, coder = after.images, after.kept, after.autoencoder
    return Selection(
        images=chosen,
        ratio=float(ratio),
        n_pool=len(images),
        settings={
            **original.key,
            "method": options(method),
            "patchify": {"order": patchify, **({} if stage is None else stage.settings)},
        },
        weights=choice.weights,
        seconds={**pool.seconds, "all": time.perf_counter() - started},
        trace=choice.trace,
        ratio_kind=ratio_kind,
        kept=None if coder is None else kept,
        autoencoder=coder,
    )


def patchify(
    images: ImageSet,
    *,
    theta: float | AdaptiveTheta = 0.25,
    drop: str = "importance",
    patch_size: int | None = None,
    autoencoder: str | AutoencoderRecipe | Autoencoder = "small",
    seed: int = 0,
    setting: Setting | None = None,
) -> Patched:
    """Drop the least important patches of all images and reconstruct them, without selecting any image.

    Parameters as in `quantize`, with which it shares what is in the store. The images given are not changed.
    """
    pool = Pool(images, seed=seed, setting=setting or Setting())
    return Patchifier(pool, Patchify(theta, drop, patch_size, autoencoder)).apply()


def images_at(ratio: float, share: float, n_images: int) -> int:
    """Images to select: round(ratio * N / share of patches kept)."""
    if ratio > share + 1e-9:
        raise InputError(
            f"a stored ratio of {ratio!r} needs more images than there are: with {share:.4g} of the patches kept, "
            f"at most {share:.4g} can be stored"
        )
    return check_ratio(min(ratio / share, 1.0), n_images)
