"""Image files -> pixels: every common format and mode, any size, to one square size; with suspicion, and in parallel.

What a file holds is read from its first bytes, not from its name. A file that cannot be read is never an exception
here but a `Fault` that says why, so that a caller can list all of them.
"""

import ctypes
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from tqdm.auto import tqdm

from dqas_lib.core.errors import DataError, reason_of

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
FITS = ("crop", "pad")
# [ours] a picture that takes more bytes to decode is refused: 100 megapixels in RGB, 25 of a WebP
DECODING_BYTES = 400_000_000
# Pillow keeps at most 4 bytes per pixel: twice for a mode that is converted first, three times for transparency; a
# progressive JPEG also keeps 2 for each of 3 coefficients, a WebP three more pictures (measured)
PIXEL_BYTES, PROGRESSIVE_BYTES, WEBP_BYTES = 4, 6, 12
# pictures that take more are decoded one at a time
LARGE_BYTES = 32_000_000
_one_large = threading.Lock()
MEMBER_BYTES = 64_000_000  # a member of an archive that is larger is refused unread
GAP = 3.0  # a picture is averaged down until it is this many times too large, then resampled
CHUNK = 64  # files that a thread takes at a time

Given = TypeVar("Given")
Made = TypeVar("Made")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


def refuse_faults(faults: Sequence[Fault], total: int, where: str, remedy: str = "mend or remove them") -> None:
    """Raise DataError that lists the unreadable files (all, up to 50) of `total`, if there are any."""
    if faults:
        listed = "; ".join(str(fault) for fault in faults[:50])
        more = f"; and {len(faults) - 50:,} more" if len(faults) > 50 else ""
        raise DataError(f"{where}: {len(faults):,} of {total:,} image files cannot be used: {remedy}. {listed}{more}")


class Decoded(NamedTuple):
    """What a file held: pixels (size, size, 3) uint8; upright width and height in pixels; format and mode as stored."""

    pixels: np.ndarray
    width: int
    height: int
    kind: str


def try_decode(name: str, file: BinaryIO, *, size: int, fit: str = "crop") -> Decoded | Fault:
    """Decode one picture to (size, size, 3) uint8; a `Fault` in place of any exception, whatever the bytes are [ours].

    A picture of that size already is not resampled. Transparent parts become white, 16 bits become 8 by dividing by
    257, an animation gives its first frame, EXIF turns the picture upright.

    Args:
        name: Of the file, for its fault.
        file: Open for reading bytes.
        size: Side in pixels.
        fit: "crop" (the shorter side becomes `size`, the middle is kept) or "pad" (the longer one, the rest is black).
    """
    try:
        return _decode(file, size, fit)
    except DataError as error:
        return Fault(name, str(error))
    except UnidentifiedImageError:
        return Fault(name, f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture")
    except Image.DecompressionBombError as error:
        return Fault(name, f"refused as a decompression bomb: {error}")
    except Exception as error:  # Pillow's readers raise many kinds on hostile bytes; each means "cannot be read"
        return Fault(name, f"cannot be read ({reason_of(error)})")


def _decode(file: BinaryIO, size: int, fit: str) -> Decoded:
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    kind = f"{image.format} {image.mode}"
    # a JPEG more than twice too large is decoded at a half, a quarter or an eighth: a fraction of the time
    drafted = image.draft(None, (2 * size, 2 * size))
    box = drafted[1] if drafted else (0, 0, width, height)
    large = _bytes_to_decode(image, width, height) > LARGE_BYTES
    with _one_large if large else nullcontext():
        try:
            pixels, sideways = _upright(image, box, size, fit)
        finally:
            del image  # its memory is free before the next large picture may have it: given back by the C library, too
            if large:
                with suppress(OSError, AttributeError, TypeError):  # where it has such a function
                    ctypes.CDLL(None).malloc_trim(0)
    return Decoded(pixels, *((height, width) if sideways else (width, height)), kind)


def _bytes_to_decode(image: Image.Image, width: int, height: int) -> int:
    """Bytes it takes to decode an opened picture of width x height pixels; DataError when that is too much."""
    copies = 3 if "transparency" in image.info else 1 if image.mode in ("RGB", "L") else 2
    more = WEBP_BYTES * (image.format == "WEBP") + PROGRESSIVE_BYTES * bool(image.info.get("progressive"))
    needed = copies * PIXEL_BYTES * image.width * image.height + more * width * height
    if needed > DECODING_BYTES:
        raise DataError(
            f"is {width:,} x {height:,} pixels and would take {needed / 1e6:,.0f} MB to decode, more than the "
            f"{DECODING_BYTES / 1e6:,.0f} MB allowed: refused as a decompression bomb; scale it down if it is yours"
        )
    return needed


def _upright(image: Image.Image, box: Box, size: int, fit: str) -> tuple[np.ndarray, bool]:
    """Pixels of the square, turned as EXIF says, and whether by a quarter; the picture's memory is free afterwards."""
    orientation = 1
    try:
        square = _square(image, box, size, fit)
        with suppress(Exception):  # a damaged EXIF block counts as none, as in every viewer
            orientation = int(image.getexif().get(Base.Orientation, 1))
    finally:
        image.close()
    if 2 <= orientation <= 8:
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        square.info = {"exif": exif.tobytes()}  # nothing else of it: Pillow would write back what may be damaged
        square = ImageOps.exif_transpose(square)
    return np.asarray(square), 5 <= orientation <= 8


def _square(image: Image.Image, box: Box, size: int, fit: str) -> Image.Image:
    """The square of `size` pixels in RGB: the middle of `box`, or all of it with black around it."""
    width, height = box[2:]
    if image.size == (size, size) and width == height == size:
        return _rgb(image)
    side = min(width, height) if fit == "crop" else max(width, height)
    whole = size, size
    if fit == "crop":
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    else:
        whole = max(1, round(width * size / side)), max(1, round(height * size / side))
    scaled = _rgb(_smooth(image).resize(whole, Image.Resampling.LANCZOS, box, GAP))
    if fit == "crop":
        return scaled
    padded = Image.new("RGB", (size, size))
    padded.paste(scaled, ((size - whole[0]) // 2, (size - whole[1]) // 2))
    return padded


def _smooth(image: Image.Image) -> Image.Image:
    """The picture in a mode that can be resampled: no palette, no 16 bits, colors weighted by their opacity."""
    if image.mode.startswith("I"):
        return image.convert("I")
    if image.has_transparency_data:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB: 16-bit gray scaled, transparent parts on white."""
    if image.mode.startswith("I"):
        gray = np.asarray(image)
        return Image.fromarray(np.round(np.clip(gray, 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "RGBa" or image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def decode_all(
    names: Sequence[str],
    open_file: Callable[[str], BinaryIO],
    *,
    size: int,
    fit: str = "crop",
    progress: bool = True,
    label: str = "",
) -> tuple[np.ndarray, list[Decoded | Fault]]:
    """Decode N files, one thread per core: Pillow lets go of the interpreter while it decodes and resamples.

    Gives images (N, size, size, 3) uint8 in the order of `names` (zeros where a file cannot be read), and for each file
    what is known of it (its pixels are empty) or its `Fault`. open_file: opens one of `names` for reading bytes.
    """
    images = np.zeros((len(names), size, size, 3), dtype=np.uint8)
    empty = np.zeros((0, 0, 3), dtype=np.uint8)

    def one(position: int) -> Decoded | Fault:
        try:
            with open_file(names[position]) as file:
                result = try_decode(names[position], file, size=size, fit=fit)
        except Exception as error:  # a file that is gone or forbidden, a damaged member of an archive
            return Fault(names[position], f"cannot be read ({reason_of(error)})")
        if isinstance(result, Fault):
            return result
        images[position] = result.pixels
        return result._replace(pixels=empty)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what Pillow grumbles about is decided above
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return images, in_threads(one, range(len(names)), progress=progress, label=label)


def in_threads(work: Callable[[Given], Made], items: Sequence[Given], *, progress: bool, label: str = "") -> list[Made]:
    """`work` of each item, in their order, one thread per core; Ctrl-C does not wait for what is not begun."""
    with ThreadPool(os.cpu_count()) as pool:
        made = pool.imap(work, items, CHUNK)
        return list(tqdm(made, total=len(items), desc=label, unit="file", disable=not progress))
