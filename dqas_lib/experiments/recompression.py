"""A control nobody publishes: all the images, as JPEG or WebP, at the bytes of a compressed set."""

import bisect
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dqas_lib.core.checks import kinds, one_of
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet

CODECS = ("jpeg", "webp")
SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)
QUALITIES = range(1, 96)
_SAMPLE = 200  # images on which quality and size are chosen; the bytes are then checked on all


@dataclass(frozen=True, eq=False)
class Recompressed:
    """The same samples with the decoded pixels, and what they cost."""

    images: ImageSet
    n_bytes: int  # of all encoded images (JPEG: with one copy of the tables they share; no labels, no file names)
    codec: str
    quality: int
    side: int  # in pixels, of what was encoded
    psnr: float  # mean over the images, in dB


@kinds
def recompress(images: ImageSet, n_bytes: int, *, codec: str = "jpeg") -> Recompressed:
    """All the images in at most `n_bytes`, at the size and quality that give the best PSNR [ours].

    Sizes: the images' own side times SCALES (encoded smaller, scaled up again after decoding, Lanczos); for each, the
    largest quality that fits is found by bisection on a sample, and the best size by the sample's PSNR; the bytes of
    all images are then counted, and the quality lowered until they fit. Gray images are encoded as gray.

    Raises:
        InputError: For an unknown codec, an empty set, or fewer bytes than the smallest encoding takes.
    """
    one_of("codec", codec, CODECS)
    if not len(images):
        raise InputError("there are no images to encode")
    pixels, gray = images.images, is_gray(images.images)
    sample = pixels[:: max(1, len(pixels) // _SAMPLE)]
    fair = n_bytes * len(sample) / len(pixels)
    sides = [max(1, round(images.size * scale)) for scale in SCALES]
    fits = []
    for side in sides:
        best = bisect.bisect_right(QUALITIES, fair, key=lambda quality: _coded(sample, side, quality, codec, gray)[0])
        if best:
            quality = QUALITIES[best - 1]
            fits.append((_psnr(sample, _coded(sample, side, quality, codec, gray)[1]), side, quality))
    for _, side, largest in sorted(fits, reverse=True):
        for quality in range(largest, QUALITIES[0] - 1, -1):
            size, decoded = _coded(pixels, side, quality, codec, gray)
            if size <= n_bytes:
                return Recompressed(images.with_images(decoded), size, codec, quality, side, _psnr(pixels, decoded))
    least = _coded(pixels, sides[-1], QUALITIES[0], codec, gray)[0]
    raise InputError(f"{n_bytes:,} bytes are too few: {len(pixels):,} images as {codec} take at least {least:,}")


def png_bytes(images: ImageSet) -> int:
    """Bytes of the images as PNG files (gray ones as gray), without names: what a selection takes, kept exactly."""
    pictures = (Image.fromarray(pixels[..., 0] if is_gray(pixels) else pixels) for pixels in images.images)
    return sum(len(_saved(picture, "PNG", optimize=True)) for picture in pictures)


def is_gray(pixels: np.ndarray) -> bool:
    """Whether the three channels are the same everywhere."""
    return bool((pixels[..., :1] == pixels).all())


def _coded(pixels: np.ndarray, side: int, quality: int, codec: str, gray: bool) -> tuple[int, np.ndarray]:
    """Bytes of the encoded images, and the (N, H, W, 3) uint8 images that come back."""
    height, width = pixels.shape[1:3]
    tables = jpeg_tables(side, quality, gray) if codec == "jpeg" else b""
    total, back = len(tables), np.empty_like(pixels)
    for i, image in enumerate(pixels):
        picture = Image.fromarray(image[..., 0] if gray else image).resize((side, side), Image.Resampling.LANCZOS)
        if codec == "jpeg":
            data = _saved(picture, "JPEG", quality=quality, streamtype=2)
            decoded = whole_jpeg(tables, data)
        else:
            data = _saved(picture.convert("RGB"), "WEBP", quality=quality, method=4)
            decoded = Image.open(io.BytesIO(data))
        total += len(data)
        back[i] = np.asarray(decoded.resize((width, height), Image.Resampling.LANCZOS).convert("RGB"))
    return total, back


def _saved(picture: Image.Image, codec: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, codec, **options)
    return buffer.getvalue()


def jpeg_tables(side: int, quality: int, gray: bool) -> bytes:
    """The quantization and Huffman tables that all JPEG images of a side and quality share."""
    return _saved(Image.new("L" if gray else "RGB", (side, side)), "JPEG", quality=quality, streamtype=1)


def whole_jpeg(tables: bytes, data: bytes) -> Image.Image:
    """The picture of a JPEG stream without tables: the tables' end and the stream's start marker are left out."""
    return Image.open(io.BytesIO(tables[:-2] + data[2:]))


def _psnr(before: np.ndarray, after: np.ndarray) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB (at most 99 for an image that is the same)."""
    error = np.square(before.astype(np.float32) - after).mean(axis=(1, 2, 3))
    return float(np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-9)), 99.0).mean())
