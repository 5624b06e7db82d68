"""A control nobody publishes: all the images, as JPEG or WebP, at the bytes of a compressed set."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet

CODECS = ("jpeg", "webp")


SCALES = (1.0, 0.75, 0.5, 0.375, 0.25)


_SAMPLE = 200  # images on which quality and size are chosen; the bytes are then checked on all


_QUALITIES = (1, 95)


@dataclass(frozen=True, eq=False)
class Recompressed:
    """The decoded images and what they cost.

    images: the same samples with the pixels that come back; n_bytes: of all encoded images (JPEG: with one copy of the
    quantization and Huffman tables, which all images share; no labels, no file names); quality: of the codec, 1 to 95;
    side: side in pixels of what was encoded; psnr: mean over the images, in dB.
    """

    images: ImageSet
    n_bytes: int
    codec: str
    quality: int
    side: int
    psnr: float


def recompress(images: ImageSet, n_bytes: int, *, codec: str = "jpeg") -> Recompressed:
    """All the images in at most `n_bytes`, at the size and quality that give the best PSNR. [ours]

    Sizes: the images' own side times SCALES (encoded smaller, scaled up again after decoding, Lanczos); for each, the
    largest quality that fits is found by bisection on a sample, and the best size by the sample's PSNR; the bytes of
    all images are then counted, and the quality lowered until they fit. Gray images are encoded as gray.
    Raises InputError for an unknown codec, an empty set, or fewer bytes than the smallest encoding takes.
    """
    if codec not in CODECS:
        raise InputError(f"codec is one of {', '.join(CODECS)}; got {codec!r}")
    if not len(images):
        raise InputError("there are no images to encode")
    pixels = images.images
    gray = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())
    sample = pixels[:: max(1, len(pixels) // _SAMPLE)]
    found = []
    for scale in SCALES:
        side = max(1, round(images.size * scale))
        quality = _largest_quality(sample, n_bytes * len(sample) / len(pixels), side, codec, gray)
        if quality is not None:
            found.append((_psnr(sample, _both(sample, side, quality, codec, gray)[1]), side, quality))
    if not found:
        side = max(1, round(images.size * SCALES[-1]))
        least = _both(pixels, side, _QUALITIES[0], codec, gray)[0]
        raise InputError(f"{n_bytes:,} bytes are too few: {len(pixels):,} images as {codec} take at least {least:,}")
    for _, side, quality in sorted(found, reverse=True):
        while quality >= _QUALITIES[0]:
            size, decoded = _both(pixels, side, quality, codec, gray)
            if size <= n_bytes:
                made = images.with_images(decoded)
                return Recompressed(made, size, codec, quality, side, _psnr(pixels, decoded))
            quality -= 1
    raise InputError(f"{n_bytes:,} bytes are too few for {len(pixels):,} images as {codec}")


def _largest_quality(sample: np.ndarray, n_bytes: float, side: int, codec: str, gray: bool) -> int | None:
    """The largest quality at which the sample fits, or None."""
    low, high = _QUALITIES
    if _both(sample, side, low, codec, gray)[0] > n_bytes:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if _both(sample, side, middle, codec, gray)[0] <= n_bytes:
            low = middle
        else:
            high = middle - 1
    return low


def _both(pixels: np.ndarray, side: int, quality: int, codec: str, gray: bool) -> tuple[int, np.ndarray]:
    """Bytes of the encoded images, and the (N, H, W, 3) uint8 images that come back."""
    encode, decode, shared = _jpeg(side, quality, gray) if codec == "jpeg" else _webp(quality)
    height, width = pixels.shape[1:3]
    total, back = shared, np.empty_like(pixels)
    for i, image in enumerate(pixels):
        picture = Image.fromarray(image[..., 0] if gray else image)
        if side != width:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)
        data = encode(picture)
        total += len(data)
        seen = decode(data)
        if side != width:
            seen = seen.resize((width, height), Image.Resampling.LANCZOS)
        back[i] = np.asarray(seen.convert("RGB"))
    return total, back


def _jpeg(side: int, quality: int, gray: bool) -> tuple[Callable, Callable, int]:
    """Encoder and decoder of JPEG streams without tables, and the size of the tables, which are kept once."""

    def saved(picture: Image.Image, stream: int) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, streamtype=stream)
        return buffer.getvalue()

    tables = saved(Image.new("L" if gray else "RGB", (side, side)), 1)
    before = tables[:-2]  # without the end-of-image marker; of the picture, the start marker is left out

    def decode(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(before + data[2:]))

    return lambda picture: saved(picture, 2), decode, len(tables)


def _webp(quality: int) -> tuple[Callable, Callable, int]:
    def encode(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
        return buffer.getvalue()

    return encode, lambda data: Image.open(io.BytesIO(data)), 0


def _psnr(before: np.ndarray, after: np.ndarray) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB (at most 99 for an image that is the same)."""
    error = np.square(before.astype(np.float32) - after).mean(axis=(1, 2, 3))
    return float(np.minimum(10 * np.log10(255.0**2 / np.maximum(error, 1e-9)), 99.0).mean())


def png_bytes(images: ImageSet) -> int:
    """Bytes of the images as PNG files (gray ones as gray), without names: what a selection takes, kept exactly."""
    total = 0
    for pixels in images.images:
        gray = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if gray else pixels).save(buffer, "PNG", optimize=True)
        total += buffer.tell()
    return total
