"""What makes a training set rather than selecting one: distillation, re-encoding, and whatever a user adds.

A method selects images; a maker makes new ones. Comparisons train on both in the same way, with the same seeds.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from dqas_lib.core.checks import check_ratio, one_of, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry, unknown
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.distillation import MATCHINGS, distil
from dqas_lib.experiments.recompression import CODECS, png_bytes, recompress
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
    """All the images in a codec, at the bytes that as many random ones as the ratio gives take as PNG."""

    name: str
    codec: str
    kind: ClassVar[str] = "re-encoded"

    def __post_init__(self) -> None:
        one_of("codec", self.codec, CODECS)

    def make(self, images: ImageSet, ratio: float, seed: int, setting: Setting) -> ImageSet | None:
        """See `Maker.make`; None when the images do not fit into the bytes, however small and coarse."""
        n_bytes = png_bytes(quantize(images, ratio, method="random", seed=seed).images)
        try:
            return recompress(images, n_bytes, codec=self.codec).images
        except InputError:
            return None


MAKERS.register(Distillation("dm", "random"))
MAKERS.register(Distillation("dream", "representative"))
MAKERS.register(Reencoding("jpeg", "jpeg"))
MAKERS.register(Reencoding("webp", "webp"))

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
