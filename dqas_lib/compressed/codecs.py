"""Codecs: pixels -> bytes -> pixels, of one image or of a sheet of many.

A codec is any object with a `label`, `encode(pixels) -> bytes` and `decode(content, height, width) -> pixels`, pixels
being (H, W, 3) uint8. A compressed set holds its images as contact sheets, coded by `SHEETS`.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from PIL import Image

from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet

SHEET_PIXELS = 2**22  # of one contact sheet: few files, and little memory while one is read


@dataclass(frozen=True)
class Codec:
    """An image format.

    format: Pillow's name; quality: 0 to 100, None: lossless; effort: spent by a lossless WebP on being small, 0 to 100.
    """

    format: str
    quality: int | None = None
    effort: int = 80

    @property
    def label(self) -> str:
        """Its name for tables."""
        kind = "lossless" if self.quality is None else f"quality {self.quality}"
        return f"{self.format.replace('WEBP', 'WebP')}, {kind}"

    def encode(self, pixels: np.ndarray) -> bytes:
        """(H, W, 3) uint8 as the content of a file."""
        options: dict[str, Any] = {"quality": self.quality}
        if self.quality is None:
            webp = {"lossless": True, "quality": self.effort, "method": 4}
            options = webp if self.format == "WEBP" else {"optimize": True}
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


def coded(images: ImageSet, codec: Codec) -> tuple[ImageSet, int]:
    """The images after a codec, and their bytes as one file each: the control that costs no method at all.

    InputError for a lossless JPEG, which Pillow does not write.
    """
    if codec.format == "JPEG" and codec.quality is None:
        raise InputError("JPEG is not lossless: give a quality from 1 to 95")
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
