"""What makes a training set rather than selecting one: distillation, re-encoding, and whatever a user adds.

A method selects images; a maker makes new ones. Comparisons train on both in the same way, with the same seeds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

from dqas_lib.compressed.byte_budget import TooFewBytes
from dqas_lib.compressed.codecs import LOSSY_WEBP, Codec
from dqas_lib.core.checks import check_fields, check_ratio, one_of, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry, unknown
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.distillation import MATCHINGS, distil
from dqas_lib.methods.base import METHODS, Method, get_method
from dqas_lib.quantize import quantize
from dqas_lib.training.setting import Setting


@runtime_checkable
class Maker(Protocol):
    """Makes a training set at a ratio; `kind` is the word for it in tables: "distilled", "re-encoded", your own."""

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def kind(self) -> str:
        """Its kind in tables."""

    def make(self, images: ImageSet, ratio: float, seed: int, setting: Setting) -> ImageSet | None:
        """A set that costs what round(ratio * N) of the images cost; None: it cannot be made at this ratio."""


MAKERS: Registry[Any] = Registry("maker")


@dataclass(frozen=True)
class Distillation:
    """Synthetic images by `distil`, as many of every class as the ratio gives (rounded down, at least one)."""

    name: str
    matching: str
    steps: int = 300
    kind: ClassVar[str] = "distilled"

    def __post_init__(self) -> None:
        one_of("matching", self.matching, MATCHINGS)
        whole_number("steps", self.steps)

    def make(self, images: ImageSet, ratio: float, seed: int, setting: Setting) -> ImageSet | None:
        """See `Maker.make`; None when that is more images per class than the smallest class has."""
        sizes = images.class_counts[images.class_counts > 0]
        per_class = max(1, check_ratio(ratio, len(images)) // len(sizes))
        if per_class > sizes.min():
            return None
        return distil(images, per_class, matching=self.matching, steps=self.steps, seed=seed, setting=setting).images


@dataclass(frozen=True)
class Reencoding:
    """All the images in a lossy codec, at the bytes that as many random ones as the ratio gives take lossless."""

    name: str
    codec: Codec
    kind: ClassVar[str] = "re-encoded"

    def __post_init__(self) -> None:
        check_fields(self)

    def make(self, images: ImageSet, ratio: float, seed: int, setting: Setting) -> ImageSet | None:
        """See `Maker.make`; None when the images do not fit into the bytes, however coarse."""
        within = partial(quantize, images, method="random", seed=seed, setting=setting)
        try:
            return within(bytes=within(ratio).total_bytes, codec=self.codec, n_images=len(images)).images
        except TooFewBytes:
            return None


MAKERS.register(Distillation("dm", "random"))
MAKERS.register(Distillation("dream", "representative"))
MAKERS.register(Reencoding("jpeg", Codec("JPEG", 50)))
MAKERS.register(Reencoding("webp", LOSSY_WEBP))

Source = Method | Maker  # where a training set comes from


def get_source(source: str | Source) -> Source:
    """A method or maker by its registered name, or the given object; InputError for what is neither."""
    if isinstance(source, str):
        if source not in METHODS and source not in MAKERS:
            raise unknown("method", source, (*METHODS, *MAKERS))
        registered = (MAKERS if source in MAKERS else METHODS)[source]
        source = registered() if isinstance(registered, type) else registered
    if callable(getattr(source, "make", None)) and not hasattr(source, "select") and not isinstance(source, type):
        if isinstance(source, Maker):
            return source
        raise InputError(f"not a maker: {source!r} lacks a name or a kind, texts that tables show")
    return get_method(source)
