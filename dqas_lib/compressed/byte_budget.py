"""A budget in bytes: what it is measured by, how many images at which quality fit, and the storage law [ours].

The law, err = e + A n^-a + B b^-c for n images of b bytes each (Mentzer and Montanari, KDD 2024), says what a network
trained on them will get wrong. It is fitted to nine pilots: three numbers of random images at three qualities, trained
by the setting's recipe and judged on validation images. Pilots depend on no budget, so several budgets share them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import scipy

from dqas_lib.compressed.codecs import LOSSY_COLUMNS, QUALITIES, Codec, Sheet, by_class, code_sheet, code_sheets
from dqas_lib.compressed.write import contents, decoded, lossy_sheets
from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import check_seed, derive, generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
AMOUNT = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*)\s*(%|([kMG]i?)?B)\s*")
PILOT_FRACTIONS, PILOT_QUALITIES = (1 / 16, 1 / 4, 1.0), (15, 40, 75)
SAMPLE = 400  # images whose sheet tells what a quality costs, before all are coded


class TooFewBytes(InputError):
    """A budget in bytes that the images asked for do not fit into, at any quality."""


Chosen = TypeVar("Chosen")
Sized = Callable[[ImageSet, Sequence[Sheet] | None], int]


@dataclass(frozen=True)
class StorageLaw:
    """err = e + A n^-a + B b^-c; pilots: (P, 4) n, b in bytes, the error measured, seconds of the training."""

    e: float
    A: float
    a: float
    B: float
    c: float
    pilots: np.ndarray

    def error(self, n: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
        """The error expected of n images of b bytes each."""
        return self.e + self.A * np.asarray(n, float) ** -self.a + self.B * np.asarray(b, float) ** -self.c


def fit_law(pilots: np.ndarray) -> StorageLaw:
    """The law nearest to (P, 4) pilots: exponents from a grid, the rest by nonnegative least squares."""
    n, b, error = np.asarray(pilots, dtype=np.float64).T[:3]
    best: tuple[float, StorageLaw] | None = None
    for a in np.geomspace(0.1, 2, 20):
        for c in np.geomspace(0.1, 4, 20):
            rows = np.stack([np.ones_like(n), (n / n.max()) ** -a, (b / b.max()) ** -c], axis=1)
            (e, by_n, by_b), residual = scipy.optimize.nnls(rows, error)
            if best is None or residual < best[0]:
                A, B = float(by_n * n.max() ** a), float(by_b * b.max() ** c)
                best = residual, StorageLaw(float(e), A, float(a), B, float(c), pilots)
    assert best is not None
    return best[1]


def storage_law(
    images: ImageSet, codec: Codec, seed: int, setting: Setting, qualities: Sequence[int] = PILOT_QUALITIES
) -> StorageLaw:
    """The law of these images, fitted to pilots at these qualities; each pilot is kept in the setting's store."""
    setting = setting.suited_to(images)
    rest, validation = images.hold_out(float(np.clip(1000 / len(images), 0.1, 0.3)), seed)
    rows, order = [], generator(check_seed(seed), "storage law").permutation(np.argsort(rest.ids, kind="stable"))
    for fraction in PILOT_FRACTIONS:
        some = rest.take(order[: max(1, round(fraction * len(rest)))])
        for quality in qualities:
            level = replace(codec, quality=quality)

            def pilot(some: ImageSet = some, level: Codec = level) -> Mapping[str, Any]:
                sheets = lossy_sheets(some, level)
                result = train(
                    decoded(some, sheets, None, None),
                    setting=setting,
                    seed=derive(seed, "storage law"),
                    evaluate_on=validation,
                )
                each = sum(len(sheet.content) for sheet in sheets) / len(some)
                return {"pilot": np.array([len(some), each, 1 - result.accuracy, result.seconds])}

            key = {"images": images.fingerprint(), "seed": seed, "n": len(some), "codec": level.label, **setting.key}
            key |= {"effort": level.effort, "chroma": level.chroma}
            store, code = setting.store, (train, lossy_sheets, code_sheets)
            found = pilot() if store is None else store.load_or_compute("storage pilot", key, pilot, code=code)
            rows.append(found["pilot"])
    return fit_law(np.array(rows))


def lossless_bytes(images: ImageSet, setting: Setting) -> int:
    """Bytes of the folder of all the images in lossless sheets; kept in the setting's store."""

    def measure() -> dict[str, np.ndarray]:
        return {"bytes": np.asarray(sum(len(content) for _, content in contents(images, None, None, None, None)))}

    key, store = {"images": images.fingerprint()}, setting.store
    found = measure() if store is None else store.load_or_compute("lossless bytes", key, measure, code=(contents,))
    return int(found["bytes"])


def reference_bytes(images: ImageSet, setting: Setting) -> tuple[int, str]:
    """The bytes that "10%" refers to, and their name: a folder's own files, or else the images in lossless sheets."""
    originals = images.provenance.get("bytes_per_image")
    if originals:
        return round(originals * len(images)), "the files of the folder as they lie there"
    return lossless_bytes(images, setting), "all images in lossless sheets"


def bytes_asked(amount: int | str, reference: Callable[[], int]) -> int:
    """A budget in bytes: a whole number, "12 MB" (10^6; MiB: 2^20), or "10%" of the reference; else InputError."""
    if not isinstance(amount, str):
        return whole_number("bytes", amount)
    match = AMOUNT.fullmatch(amount)
    if match is None:
        raise InputError(f"bytes must be a whole number, or a text such as '12 MB' or '10%'; got {amount!r}")
    value = float(match[1].replace("_", "").replace(",", ""))
    if match[2] == "%":
        return int(number("bytes in %", value, 0, ends="()") / 100 * reference())
    return whole_number("bytes", int(value * UNITS[match[3] or ""]))


def best_number(law: StorageLaw, n_bytes: int, fixed: int, each: float, ends: tuple[float, float], most: int) -> int:
    """Number of images that the law expects the least error of, within the bytes.

    Args:
        fixed, each: Bytes of a set beside its sheets: once, and per image (label and id).
        ends: Bytes an image takes at the lowest and the highest quality.
        most: Images there are.
    """
    counts = np.unique(np.geomspace(1, most, 400).round().astype(np.int64))
    share = (n_bytes - fixed) / counts - each
    fits = share >= ends[0]
    if not fits.any():
        return 1
    return int(counts[fits][np.argmin(law.error(counts[fits], np.minimum(share[fits], ends[1])))])


def as_many_as_fit(build: Callable[[int], Chosen], n_bytes: int, most: int, size: Callable[[Chosen], int]) -> Chosen:
    """The selection of as many images as fit into the bytes, found by interpolation; TooFewBytes when not one does.

    build: selects n of at most `most` images; size: bytes of a selection.
    """
    best, low, high, high_bytes = build(1), 1, most + 1, None
    low_bytes = size(best)
    if low_bytes > n_bytes:
        raise TooFewBytes(f"{n_bytes:,} bytes are too few: the smallest set, one image, takes {low_bytes:,}; give more")
    n = 2 + n_bytes // low_bytes
    for _ in range(25):
        n = min(max(n, low + 1), high - 1)
        if n <= low or low_bytes >= 0.99 * n_bytes:
            break
        trial = build(n)
        if (taken := size(trial)) <= n_bytes:
            best, low, low_bytes = trial, n, taken
        else:
            high, high_bytes = n, taken
        slope = low_bytes / low if high_bytes is None else (high_bytes - low_bytes) / (high - low)
        n = low + round((0.996 * n_bytes - low_bytes) / max(slope, 1e-9))
    for n in range(high + 1, min(high + 13, most + 1)):  # one image more moves a small sheet's bytes up or down
        if low_bytes >= 0.99 * n_bytes:
            break
        if low_bytes < (taken := size(trial := build(n))) <= n_bytes:
            best, low_bytes = trial, taken
    return best


def bytes_at(pixels: np.ndarray, codec: Codec, quality: int | None) -> float:
    """Bytes an image takes in a sheet at this quality, by a sample of the (N, H, W, 3) pixels."""
    sample = pixels[:: max(1, len(pixels) // SAMPLE)][:SAMPLE]
    return len(code_sheet(sample, replace(codec, quality=quality), LOSSY_COLUMNS).content) / len(sample)


def fill(images: ImageSet, pixels: np.ndarray, codec: Codec, n_bytes: int, sized: Sized) -> list[Sheet]:
    """Lossy sheets of the images at the highest quality that fits, their first part one step better to use the rest.

    Args:
        pixels: (N, H, W, 3) what is coded: the images, dropped patches black.
        sized: Bytes of the whole folder with these sheets.

    Raises:
        TooFewBytes: When the images do not fit even at quality 0; it names the bytes they take then.
    """
    ordered, columns, best = pixels[by_class(images.labels)], LOSSY_COLUMNS, QUALITIES[codec.format]
    made: dict[int, list[Sheet]] = {}

    def at(quality: int) -> list[Sheet]:
        if quality not in made:
            made[quality] = code_sheets(ordered, replace(codec, quality=quality), columns)
        return made[quality]

    room, low, high = (n_bytes - sized(images, [])) / len(images), 0, best
    while low < high:  # on a sample
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bytes_at(pixels, codec, middle) <= room else (low, middle - 1)
    while low > 0 and sized(images, at(low)) > n_bytes:
        low -= 1
    if (least := sized(images, at(low))) > n_bytes:
        raise TooFewBytes(
            f"{n_bytes:,} bytes are too few: {len(images):,} images take {least:,} at quality 0, labels, ids and "
            "manifest included: give more bytes or fewer images"
        )
    while low < best and sized(images, at(low + 1)) <= n_bytes:
        low += 1
    if low == best:
        return at(low)
    better, plain = at(low + 1), at(low)
    first = max(i for i in range(len(plain)) if sized(images, [*better[:i], *plain[i:]]) <= n_bytes)
    start, count = sum(sheet.count for sheet in plain[:first]), plain[first].count
    sheets, low_cut, high_cut = [*better[:first], *plain[first:]], 0, count
    while high_cut - low_cut > 1:  # this sheet cut in two
        cut = (low_cut + high_cut) // 2
        halves = [
            code_sheet(ordered[start : start + cut], replace(codec, quality=low + 1), columns),
            code_sheet(ordered[start + cut : start + count], replace(codec, quality=low), columns),
        ]
        trial = [*better[:first], *halves, *plain[first + 1 :]]
        if (fits := sized(images, trial)) <= n_bytes:
            low_cut, sheets = cut, max(sheets, trial, key=lambda each: sized(images, each))
        else:
            high_cut = cut
        if 0.995 * n_bytes <= fits <= n_bytes:
            break
    return sheets
