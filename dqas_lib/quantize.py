"""The front door: check what is given, call the stages in order, check what they give back."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from dqas_lib.compressed.byte_budget import (
    as_many_as_fit,
    best_number,
    bytes_asked,
    bytes_at,
    fill,
    reference_bytes,
    storage_law,
)
from dqas_lib.compressed.codecs import SHEETS, Codec, Sheet, lossy_codec
from dqas_lib.compressed.soft_labels import soften
from dqas_lib.compressed.write import blackened, contents, decoded, lossy_sheets, save_compressed
from dqas_lib.core.checks import a_path, check_ratio, kinds, of_kind, one_of, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.files import npy_bytes, write_atomically
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.base import Method, checked, get_method, options
from dqas_lib.patches.autoencoder import Autoencoder
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.masks import AdaptiveTheta, grid_of
from dqas_lib.patches.patchify import Patched, Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.training.setting import Setting

ORDERS = ("none", "first", "last")
RATIO_KINDS = ("image", "stored")
MANIFEST_SETTINGS = 1_500  # bytes that settings take in a manifest, about: for the choice of how many images


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
        sheets: The lossy sheets that `images` were decoded from; None: the set is saved in lossless ones.
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
    sheets: Sequence[Sheet] | None = field(default=None, repr=False)

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

    @property
    def described(self) -> dict[str, Any]:
        """What the manifest says of how the images were selected."""
        ratios = ("ratio", "ratio_kind", "image_ratio", "stored_ratio")
        return {**self.settings, **{name: getattr(self, name) for name in ratios}}

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of the compressed set on disk: sheets, masks, labels, ids, autoencoder and manifest; coded once."""
        parts = contents(self.images, self.kept, self.autoencoder, self.described, self.sheets)
        return sum(len(content) for _, content in parts)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the compressed set, to be opened by `open_compressed`; gives its folder.

        InputError when the path exists, unless it is a compressed set and `overwrite` is given.
        """
        return save_compressed(
            path,
            self.images,
            kept=self.kept,
            autoencoder=self.autoencoder,
            settings=self.described,
            sheets=self.sheets,
            overwrite=overwrite,
        )

    @kinds
    def save_indices(self, path: str | Path, pool: ImageSet | None = None) -> Path:
        """Write (B,) int64 positions as .npy, the index file that DQ's and DeepCore's loaders take; gives its path.

        Args:
            pool: The images selected from: positions are those in it. None: positions in the official training file,
                which the ids of digits and CIFAR are; InputError for folders of images, whose ids are paths.
        """
        if pool is None and self.ids.dtype.kind not in "iu":
            raise InputError(f"ids like {self.ids[0]!r} are no positions: give pool=, the images selected from")
        positions = self.ids if pool is None else pool.positions(self.ids)
        path = a_path("path", path)
        write_atomically(path, npy_bytes(positions.astype(np.int64)))
        return path


@overload
def quantize(images: ImageSet, ratio: float, **options: Any) -> Selection: ...


@overload
def quantize(images: ImageSet, ratio: None = None, *, bytes: int | str, **options: Any) -> Selection: ...


@overload
def quantize(images: ImageSet, ratio: Sequence[float], **options: Any) -> list[Selection]: ...


@kinds  # type: ignore[misc]  # the overloads say which ratio gives what, the options stand here alone
def quantize(
    images: ImageSet,
    ratio: float | Sequence[float] | None = None,
    *,
    bytes: int | str | None = None,
    codec: str | Codec = "auto",
    n_images: int | None = None,
    quality: int | None = None,
    soft_labels: bool = False,
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
        bytes: In place of a ratio: what the compressed set may take on disk, all its files counted; a whole number,
            "12 MB", or "10%" of the images in lossless sheets (of a folder: of its own files as they lie there) [ours].
        codec: Of a budget in bytes: "auto" (AVIF, or WebP where Pillow has no AVIF), "avif", "webp", "lossless", or a
            `compressed.codecs.Codec`.
        n_images, quality: Of a budget in bytes: forced. Neither: both by the storage law, whose pilots are nine
            trainings by the setting's recipe (`compressed.byte_budget`); one: as much of the other as fits.
        soft_labels: Keep what a network trained on all the images says of them, for training to learn [ours].
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
    if bytes is not None:
        if ratio is not None:
            raise InputError(f"give a ratio or bytes, not both; got {ratio!r} and {bytes!r}")

        given: Any = {"method": method, "seed": seed, "setting": setting, "patchify": patchify or "none"}
        given |= {"theta": theta, "drop": drop, "patch_size": patch_size, "autoencoder": autoencoder}

        def take(n: int) -> Selection:
            return quantize(images, n / len(images), soft_labels=soft_labels, **given)

        return _within(bytes, images, take, codec, n_images, quality, setting or Setting(), soft_labels)
    if n_images is not None or quality is not None or codec != "auto":
        raise InputError("codec, n_images and quality belong to a budget in bytes: give bytes")
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
    if patch_size is not None:
        grid_of(images.size, patch_size)
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
        if soft_labels:
            selected = replace(selected, soft_labels=soften(pool.logits[choice.positions]))
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


def _within(
    asked: int | str,
    images: ImageSet,
    take: Callable[[int], Selection],
    codec: str | Codec,
    n_images: int | None,
    quality: int | None,
    setting: Setting,
    soft_labels: bool,
) -> Selection:
    """A selection that takes at most the bytes asked, and at most 1 % less; `take` selects n images."""
    most = len(of_kind("images", images, ImageSet, "give the part of a data set to select from, such as its train"))
    codec = codec if isinstance(codec, Codec) else lossy_codec(codec)
    if quality is not None:
        if codec.quality is None:
            raise InputError(f"a lossless codec has no quality; got {quality!r}: give another codec")
        codec = replace(codec, quality=quality)
    if n_images is not None:
        whole_number("n_images", n_images, 1, most)
    n_bytes = bytes_asked(asked, lambda: reference_bytes(images, setting)[0])
    note = {"asked": n_bytes, "as": str(asked), "codec": codec.format}

    def build(n: int, level: Codec | None) -> Selection:
        """N images in this codec; None: at the quality that fills the bytes."""
        chosen = take(n)
        chosen = replace(chosen, settings={**chosen.settings, "bytes": note})
        if level is not None and level.quality is None:
            return chosen
        if level is not None:
            sheets = lossy_sheets(chosen.images, level, chosen.kept)
        else:

            def sized(_: ImageSet, sheets: Sequence[Sheet] | None) -> int:
                return replace(chosen, sheets=sheets).total_bytes

            sheets = fill(chosen.images, blackened(chosen.images.images, chosen.kept), codec, n_bytes, sized)
        back = decoded(chosen.images, sheets, chosen.kept, chosen.autoencoder)
        return replace(chosen, images=back, sheets=sheets)

    everything = n_images if n_images is not None else most
    if quality is None and n_bytes >= 0.8 * everything * bytes_at(images.images, SHEETS, None):
        whole = build(everything, SHEETS)
        if whole.total_bytes <= n_bytes:
            return _said(whole, n_bytes, "lossless")
    if codec.quality is None or quality is not None:
        if n_images is None:
            return _said(
                as_many_as_fit(lambda n: build(n, codec), n_bytes, most, lambda found: found.total_bytes),
                n_bytes,
                codec.label,
            )
        forced = build(n_images, codec)
        if forced.total_bytes > n_bytes:
            taken = f"{n_images:,} images, {codec.label}, take {forced.total_bytes:,} bytes, more than {n_bytes:,}"
            raise InputError(f"{taken}: force one of n_images and quality only")
        return _said(forced, n_bytes, codec.label)
    if n_images is None:
        law = storage_law(images, codec, 0, setting)  # one law for every seed of the selection
        like = replace(images, soft_labels=np.ones((most, images.n_classes), np.uint8)) if soft_labels else images
        one, all_ = (
            sum(len(content) for _, content in contents(part, None, None, None, []))
            for part in (like.take(np.arange(1)), like)
        )
        each, ends = (all_ - one) / max(most - 1, 1), (bytes_at(images.images, codec, q) for q in (10, 95))
        n_images = best_number(law, n_bytes, one + MANIFEST_SETTINGS, each, (next(ends), next(ends)), most)
    return _said(build(n_images, None), n_bytes, codec.format)


def _said(selection: Selection, n_bytes: int, how: str) -> Selection:
    """The selection, with a warning when it leaves bytes unused or takes more than its original files did."""
    taken, each = selection.total_bytes, selection.images.provenance.get("bytes_per_image")
    if taken < 0.99 * n_bytes:
        what = f"{len(selection):,} images, {how}, take {taken:,} of the {n_bytes:,} bytes and leave the rest unused"
        warnings.warn(what, stacklevel=4)
    if each and taken > each * len(selection):
        originals = f"the {round(each * len(selection)):,} that the original files of these images take"
        warnings.warn(f"the set takes {taken:,} bytes, more than {originals}", stacklevel=4)
    return selection


def order_of(method: Any) -> str:
    """When a method has patches dropped, unless told otherwise: "none" where it does not say."""
    return str(getattr(method, "patchify", "none"))


@kinds
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
