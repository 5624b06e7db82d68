"""Image files -> pixels: every common format and mode, any size, to one square size; with suspicion, and in parallel.

What a file holds is read from its first bytes, not from its name. A file that cannot be read is never an exception
here but a `Fault` that says why, so that a caller can list all of them.
"""

import ctypes
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


FITS = ("crop", "pad")


# [ours] pictures that are being decoded at the same moment may take this many bytes together; one that needs more is
# refused. It is enough for a photograph of 100 megapixels (a WebP: 25) and keeps the whole below 500 MB.
DECODING_BYTES = 400_000_000


# Pillow keeps 4 bytes a pixel; a progressive JPEG also keeps 2 for each of 3 coefficients, a WebP three more pictures
# (measured)
PIXEL_BYTES = 4


PROGRESSIVE_BYTES = 6


WEBP_BYTES = 16


# a member of an archive that is larger is refused unread
MEMBER_BYTES = 64_000_000


# after a picture that took more than this, freed memory is given back to the system
LARGE_BYTES = 32_000_000


# a picture is averaged down until it is this many times too large, then resampled exactly
MARGIN = 2


STRIP_PIXELS = 1 << 18


CHUNK = 64


Given = TypeVar("Given")


Made = TypeVar("Made")


# EXIF orientation -> what turns the picture upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class Decoded(NamedTuple):
    """What a file held: pixels (size, size, 3) uint8; upright width and height in pixels; format and mode as stored."""

    pixels: np.ndarray
    width: int
    height: int
    kind: str


class _Refused(Exception):
    """A reason not to decode a file, in words meant for the user."""


class _Budget:
    """Lets pictures be decoded at the same time as long as they fit into memory together."""

    def __init__(self, total: int) -> None:
        self.total = self.left = total
        self.changed = threading.Condition()

    @contextmanager
    def hold(self, wanted: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.left >= wanted)
            self.left -= wanted
        try:
            yield
        finally:
            with self.changed:
                self.left += wanted
                self.changed.notify_all()


_memory = _Budget(DECODING_BYTES)


def decode(file: BinaryIO, *, size: int, fit: str = "crop") -> Decoded:
    """Decode one picture to (size, size, 3) uint8.

    file: open for reading bytes; size: side in pixels; fit: "crop" (the shorter side becomes `size`, the middle is
    kept) or "pad" (the longer side becomes `size`, the rest is black). A picture of that size already is not resampled.
    Transparent parts become white, 16 bits become 8 by dividing by 257, an animation gives its first frame, EXIF turns
    the picture upright. [ours]
    Raises _Refused, and whatever Pillow raises on a damaged file; `try_decode` turns all of it into a `Fault`.
    """
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
    kind = f"{image.format} {image.mode}"
    # a JPEG much larger than needed is decoded at a half, a quarter or an eighth: same look, a fraction of the time
    drafted = image.draft(None, (MARGIN * size, MARGIN * size))
    extent = drafted[1][2:] if drafted else image.size
    cost = _cost(image, width, height)
    with _memory.hold(cost):
        try:
            image.load()
            turn = _UPRIGHT.get(_orientation(image))
            square = _fit(*_shrink(image, extent, size, fit), size, fit)  # may be `image` itself
            pixels = np.asarray(square if turn is None else square.transpose(turn))
        finally:
            image.close()
            del image  # its memory is free before the next picture may have it
            if cost > LARGE_BYTES:
                _return_memory()
    if turn in _SIDEWAYS:
        width, height = height, width
    return Decoded(pixels, width, height, kind)


def _return_memory() -> None:
    """Give freed memory back to the system: the C library keeps it for each thread, a large picture's for all of them.

    Without it, two threads that have each decoded pictures of 400 MB hold 660 MB (measured). Does nothing where the C
    library has no malloc_trim.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _cost(image: Image.Image, width: int, height: int) -> int:
    """Bytes it takes to decode an opened picture of width x height pixels; _Refused when that is too much."""
    if image.format == "WEBP":
        bytes_ = WEBP_BYTES * width * height
    else:
        bytes_ = PIXEL_BYTES * image.width * image.height
        bytes_ += PROGRESSIVE_BYTES * width * height if image.info.get("progressive") else 0
    if bytes_ > DECODING_BYTES:
        raise _Refused(
            f"is {width:,} x {height:,} pixels and would take {bytes_ / 1e6:,.0f} MB to decode, more than the "
            f"{DECODING_BYTES / 1e6:,.0f} MB allowed: refused as a decompression bomb; scale it down if it is yours"
        )
    return bytes_


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; a damaged EXIF block counts as none, as in every viewer."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:
        return 1


def _scaled(width: float, height: float, size: int, fit: str) -> tuple[int, int]:
    """Size of the whole picture after scaling, before cropping or padding."""
    side = min(width, height) if fit == "crop" else max(width, height)
    return max(1, round(width * size / side)), max(1, round(height * size / side))


def _shrink(
    image: Image.Image, extent: tuple[float, float], size: int, fit: str
) -> tuple[Image.Image, tuple[float, float]]:
    """The picture as RGB; one that is many times too large is averaged down by a whole factor on the way.

    extent: width and height of what counts; the last column and row may stand for a part of a pixel only. Gives the
    picture and its new extent. It is still at least MARGIN times too large, so that the exact resampling after it
    shows little difference. Done strip by strip: there is never a second picture of full size.
    """
    width, height = _scaled(*extent, size, fit)
    factor = min(image.width // width, image.height // height) // MARGIN
    if factor < 2:
        return _rgb(image), extent
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = factor * max(1, STRIP_PIXELS // (factor * image.width))
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        small.paste(_rgb(strip).reduce(factor), (0, top // factor))
    return small, (extent[0] / factor, extent[1] / factor)


def _eight_bits(gray: np.ndarray) -> np.ndarray:
    return np.round(np.clip(gray, 0, 65535) / 257).astype(np.uint8)


def _rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB: 16-bit gray scaled, transparent parts on white."""
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(image: Image.Image, extent: tuple[float, float], size: int, fit: str) -> Image.Image:
    """The square of `size` pixels: resampled from the middle of `extent`, or from all of it and padded."""
    if image.size == extent == (size, size):
        return image
    width, height = extent
    if fit == "crop":
        side = min(extent)
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
        return image.resize((size, size), Image.Resampling.LANCZOS, box=box)
    wanted = _scaled(width, height, size, fit)
    padded = Image.new("RGB", (size, size), "black")
    scaled = image.resize(wanted, Image.Resampling.LANCZOS, box=(0, 0, width, height))
    padded.paste(scaled, ((size - wanted[0]) // 2, (size - wanted[1]) // 2))
    return padded


def try_decode(name: str, file: BinaryIO, *, size: int, fit: str = "crop") -> Decoded | Fault:
    """`decode`, with a `Fault` in place of an exception, whatever the bytes are."""
    try:
        return decode(file, size=size, fit=fit)
    except _Refused as error:
        return Fault(name, str(error))
    except UnidentifiedImageError:
        return Fault(name, f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture")
    except Image.DecompressionBombError as error:
        return Fault(name, f"refused as a decompression bomb: {error}")
    except Exception as error:  # Pillow's readers raise many kinds on hostile bytes; each means "cannot be read"
        return Fault(name, _said(error))


def _said(error: Exception) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
    return f"cannot be read ({text})"


def decode_all(
    names: Sequence[str],
    open_file: Callable[[str], BinaryIO],
    *,
    size: int,
    fit: str = "crop",
    progress: bool = True,
    label: str = "",
) -> tuple[np.ndarray, list[Decoded | Fault]]:
    """Decode many files, one thread a core: Pillow lets go of the interpreter while it decodes and resamples.

    open_file: opens one of `names` for reading bytes. Gives images (N, size, size, 3) uint8 in the order of `names`
    (zeros where a file cannot be read), and for each file what is known of it (its pixels left out) or its `Fault`.
    """
    images = np.zeros((len(names), size, size, 3), dtype=np.uint8)
    known: list[Decoded | Fault] = []

    def some(start: int) -> list[Decoded | Fault]:
        return [one(position) for position in range(start, min(start + CHUNK, len(names)))]

    def one(position: int) -> Decoded | Fault:
        try:
            with open_file(names[position]) as file:
                result = try_decode(names[position], file, size=size, fit=fit)
        except Exception as error:  # a file that is gone or forbidden, a damaged member of an archive
            return Fault(names[position], _said(error))
        if isinstance(result, Fault):
            return result
        images[position] = result.pixels
        return result._replace(pixels=None)

    bar = tqdm(total=len(names), desc=label, unit="file", disable=not progress)
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what Pillow grumbles about is decided above
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for part in in_threads(some, range(0, len(names), CHUNK)):
            known += part
            bar.update(len(part))
    return images, known


def in_threads(work: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[Made]:
    """`work` of each item, in the order of the items, one thread a core; four items a thread are begun ahead."""
    threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    try:
        begun: deque[Future] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) >= 4 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what is not begun
