"""TODO."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet

_SHEET_PIXELS = 2**22  # of one contact sheet: few files, and little memory while one is read


def _sheet_shape(size: int) -> tuple[int, int]:
    """(columns, rows) of images on a contact sheet."""
    side = max(1, min(int(_SHEET_PIXELS**0.5) // size, 64))
    return side, side


def _to_sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """(n, s, s, 3) -> (rows s, columns s, 3), row by row; empty places are black."""
    n, size = len(images), images.shape[1]
    rows = -(-n // columns)
    whole = np.zeros((rows * columns, size, size, 3), dtype=np.uint8)
    whole[:n] = images
    return whole.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)


def _from_sheet(sheet: np.ndarray, size: int, columns: int, n: int) -> np.ndarray:
    rows = len(sheet) // size
    return sheet.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(rows * columns, size, size, 3)[:n]


@dataclass(frozen=True)
class Codec:
    """An image format for comparison: Pillow's name of it, quality (None: lossless)."""

    format: str
    quality: int | None = None

    @property
    def label(self) -> str:
        kind = "lossless" if self.quality is None else f"quality {self.quality}"
        return f"{self.format.replace('WEBP', 'WebP')}, {kind}"

    def encode(self, image: np.ndarray) -> bytes:
        """One (H, W, 3) uint8 image as the content of a file."""
        buffer = io.BytesIO()
        options: dict[str, Any] = {"quality": self.quality}
        if self.quality is None:
            options = {"lossless": True} if self.format == "WEBP" else {"optimize": True}
        Image.fromarray(image).save(buffer, self.format, **options)
        return buffer.getvalue()


CODECS = (Codec("PNG"), Codec("WEBP"), Codec("JPEG", 90), Codec("JPEG", 75), Codec("WEBP", 75))


def coded(images: ImageSet, codec: Codec) -> tuple[ImageSet, int]:
    """The images after a codec, and their bytes as one file each: the control that costs no method at all.

    Raises InputError for a lossless JPEG, which Pillow does not write.
    """
    if codec.format == "JPEG" and codec.quality is None:
        raise InputError("JPEG is not lossless: give a quality from 1 to 95")
    pixels, total = np.empty_like(images.images), 0
    for i, image in enumerate(images.images):
        content = codec.encode(image)
        total += len(content)
        with Image.open(io.BytesIO(content)) as decoded:
            pixels[i] = np.asarray(decoded.convert("RGB"))
    return images.with_images(pixels), total
