"""Codecs: pixels -> bytes -> pixels, of one image or of a sheet of many.

A codec is any object with a `label`, `encode(pixels) -> bytes` and `decode(content, height, width) -> pixels`, pixels
being (H, W, 3) uint8. A compressed set holds its images as contact sheets: lossless, coded by `SHEETS`, or lossy
[ours].
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image, features

from dqas_lib.core.checks import one_of, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet

SHEET_PIXELS = 2**22  # of one contact sheet: few files, and little memory while one is read
LOSSY_COLUMNS = 40  # images in a row of a lossy sheet, and rows: 1,600 CIFAR images, about a second of coding
QUALITIES = {"WEBP": 100, "AVIF": 100, "JPEG": 95, "PNG": 0}  # the best of each format; 0: lossless only
CHROMAS = ("4:2:0", "4:4:4")


@dataclass(frozen=True)
class Codec:
    """An image format.

    Args:
        format: Pillow's name: "WEBP", "AVIF", "JPEG" or "PNG".
        quality: 0 to 100 (JPEG: to 95); None: lossless, which AVIF and JPEG are not.
        effort: Spent on being small, 0 to 100: 80 is Pillow's usual for WebP, 20 AVIF's speed 8.
        chroma: "4:2:0": color at half the resolution; "4:4:4": at all of it (not WebP).
        side: Pixels of an image as it is coded, scaled up again once it is read (Lanczos); None: its own.

    Raises:
        InputError: For a value out of range, a format that is not known here, or AVIF where Pillow lacks it.
    """

    format: str
    quality: int | None = None
    effort: int = 80
    chroma: str = "4:2:0"
    side: int | None = None

    def __post_init__(self) -> None:
        best = QUALITIES[one_of("format", self.format, QUALITIES)]
        whole_number("effort", self.effort, 0, 100)
        if self.quality is not None:
            whole_number(f"quality of {self.format}", self.quality, 0, best)
        elif self.format in ("AVIF", "JPEG"):
            raise InputError(f"{self.format} is not lossless: give a quality up to {best}")
        if one_of("chroma", self.chroma, CHROMAS) == "4:4:4" and self.format == "WEBP":
            raise InputError("WebP codes color at half the resolution: give chroma='4:2:0', or another format")
        if self.side is not None:
            whole_number("side", self.side)
        if self.format == "AVIF" and not features.check("avif"):
            raise InputError(
                "this Pillow reads and writes no AVIF: give format='WEBP', or install Pillow 11.3 or newer"
            )

    @property
    def label(self) -> str:
        """Its name for tables."""
        kind = "lossless" if self.quality is None else f"quality {self.quality}"
        side = "" if self.side is None else f", {self.side} px"
        return f"{self.format.replace('WEBP', 'WebP')}, {kind}{side}"

    def encode(self, pixels: np.ndarray) -> bytes:
        """(H, W, 3) uint8 as the content of a file."""
        options: dict[str, Any] = {"quality": self.quality}
        if self.format == "PNG":
            options = {"optimize": True}
        elif self.quality is None:
            options = {"lossless": True, "quality": self.effort, "method": 4}
        elif self.format == "AVIF":  # one thread: with more, equal pixels may give other bytes
            options |= {"speed": 10 - self.effort // 10, "subsampling": self.chroma, "max_threads": 1}
        elif self.format == "WEBP":
            options |= {"method": self.effort * 6 // 100}
        else:
            options |= {"subsampling": self.chroma}
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, self.format, **options)
        return buffer.getvalue()

    def decode(self, content: bytes, height: int, width: int) -> np.ndarray:
        """(height, width, 3) uint8 of the content of a file; OSError or ValueError for what is no such picture."""
        with Image.open(io.BytesIO(content), formats=[self.format]) as image:
            if image.size != (width, height):
                raise ValueError(f"{image.size[0]} x {image.size[1]} pixels in place of {width} x {height}")
            return np.asarray(image.convert("RGB"))


CODECS = (Codec("PNG"), Codec("WEBP"), Codec("JPEG", 90), Codec("JPEG", 75), Codec("WEBP", 75))
SHEETS = Codec("WEBP", effort=75)
LOSSY_WEBP = Codec("WEBP", 50)
LOSSY = {"avif": Codec("AVIF", 50, effort=20) if features.check("avif") else None, "webp": LOSSY_WEBP}


def coded(images: ImageSet, codec: Codec) -> tuple[ImageSet, int]:
    """The images after a codec, and their bytes as one file each: the control that costs no method at all."""
    pixels, total = np.empty_like(images.images), 0
    for i, image in enumerate(images.images):
        content = codec.encode(image)
        pixels[i] = codec.decode(content, *image.shape[:2])
        total += len(content)
    return images.with_images(pixels), total


def sheet_columns(size: int) -> int:
    """Images in a row of a contact sheet, and at most in a column; size: their side in pixels."""
    return max(1, min(int(SHEET_PIXELS**0.5) // size, 64))


def to_sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """(n, s, s, 3) -> (rows s, columns s, 3), row by row; empty places are black."""
    empty = np.zeros((-len(images) % columns, *images.shape[1:]), dtype=np.uint8)
    return rearrange(np.concatenate([images, empty]), "(r c) h w k -> (r h) (c w) k", c=columns)


def from_sheet(sheet: np.ndarray, size: int) -> np.ndarray:
    """(rows s, columns s, 3) -> (rows * columns, s, s, 3), the empty places included."""
    return rearrange(sheet, "(r h) (c w) k -> (r c) h w k", h=size, w=size)


@dataclass(frozen=True)
class Sheet:
    """A coded sheet of `count` images; pixels: of what it decodes to, as `digest_of_pixels` gives it."""

    content: bytes
    count: int
    codec: Codec
    pixels: str


def lossy_codec(name: str = "auto") -> Codec:
    """The codec "avif" or "webp"; "auto": AVIF, or WebP where Pillow has no AVIF, which a warning says."""
    if name == "lossless":
        return SHEETS
    wanted = "avif" if one_of("codec", name, ("auto", "lossless", *LOSSY)) == "auto" else name
    if LOSSY[wanted] is None:
        warnings.warn("this Pillow has no AVIF: WebP codes the images, and takes more bytes", stacklevel=2)
    return LOSSY[wanted] or LOSSY_WEBP


def by_class(labels: np.ndarray) -> np.ndarray:
    """(N,) positions in the order of lossy sheets: class by class, inside a class as they come."""
    return np.argsort(labels, kind="stable")


def code_sheet(pixels: np.ndarray, codec: Codec, columns: int) -> Sheet:
    """One sheet of (n, s, s, 3) images, decoded once for the digest of its pixels."""
    sheet = to_sheet(scaled(pixels, codec.side or pixels.shape[1]), columns)
    content = codec.encode(sheet)
    return Sheet(content, len(pixels), codec, digest_of_pixels(codec.decode(content, *sheet.shape[:2])))


def code_sheets(pixels: np.ndarray, codec: Codec, columns: int) -> list[Sheet]:
    """(N, s, s, 3) images, in the order given, as sheets of at most columns x columns."""
    return [
        code_sheet(pixels[first : first + columns**2], codec, columns) for first in range(0, len(pixels), columns**2)
    ]


def decode_sheet(content: bytes, codec: Codec, count: int, columns: int, size: int) -> tuple[np.ndarray, str]:
    """(count, size, size, 3) images of a sheet, and the digest of its pixels; OSError, ValueError: it is none."""
    side = codec.side or size
    sheet = codec.decode(content, -(-count // columns) * side, columns * side)
    return scaled(from_sheet(sheet, side)[:count], size), digest_of_pixels(sheet)


def digest_of_pixels(sheet: np.ndarray) -> str:
    """SHA-256 (20 hex digits) of a decoded sheet: a decoder that gives other pixels is noticed by it."""
    return hashlib.sha256(np.ascontiguousarray(sheet).data).hexdigest()[:20]


def scaled(images: np.ndarray, side: int) -> np.ndarray:
    """(n, side, side, 3) images at another resolution (Lanczos); the given ones when they have it."""
    if images.shape[1] == side:
        return images
    small = [Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS) for image in images]
    return np.stack([np.asarray(image) for image in small]) if small else images[:, :side, :side]
