"""What is stored: a folder with the kept patches, packed masks, labels, ids and the autoencoder; opened with one call.

    manifest.json             format, version, settings, and size and SHA-256 of every other file
    patches-000.webp ...      contact sheets, lossless: kept patches where they belong, dropped ones black
    masks.npy                 (N, ceil(G / 8)) uint8, a bit a patch, 1 where it is kept
    labels.npy, ids.npy       (N,) smallest whole-number type (ids.json where ids are texts)
    autoencoder.safetensors   half-precision weights (absent when nothing was dropped, or when it is a pretrained one)

Only open formats, nothing is unpickled. The folder is written under a temporary name and renamed when it is complete;
every file is checked against the manifest, and the manifest against itself, before anything is used. [ours]
"""

import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from dqas_lib.autoencoder import (
    Autoencoder,
    MaskedAutoencoder,
    PretrainedAutoencoder,
    check_fit,
    from_bytes,
    reconstruct,
    to_bytes,
)
from dqas_lib.errors import DataError, DqasError, InputError
from dqas_lib.images import ImageSet
from dqas_lib.npz import read_npy
from dqas_lib.patches import grid_of, pixel_mask
from dqas_lib.store import flush_folder

FORMAT = "dqas-compressed"
VERSION = 1
MANIFEST = "manifest.json"
_FILE = re.compile(r"patches-\d{3,}\.webp|(masks|labels|ids)\.npy|ids\.json|autoencoder\.safetensors")
_SHEET_PIXELS = 2**22  # of one contact sheet: few files, and little memory while one is read


class CompressedSet(Dataset):
    """An opened compressed set: an `ImageSet` and a `torch.utils.data.Dataset` in one.

    images: the `ImageSet` with dropped patches painted in; kept: (N, G) bool; autoencoder: None when nothing was
    dropped; manifest: what was written; sizes: bytes on disk of every file, the manifest included; reproduced: whether
    the pixels are exactly those at the time of saving (another machine may differ by one level in painted pixels).
    As a Dataset it gives (image, label): a (3, H, W) float tensor in [0, 1] (or what `transform` makes of it), an int.
    """

    def __init__(
        self,
        images: ImageSet,
        kept: np.ndarray,
        autoencoder: Autoencoder | None,
        manifest: Mapping[str, Any],
        sizes: Mapping[str, int],
        transform: Callable[[Tensor], Any] | None = None,
    ) -> None:
        self.images, self.kept, self.autoencoder = images, kept, autoencoder
        self.manifest, self.sizes, self.transform = manifest, sizes, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        pixels = torch.from_numpy(self.images.images[position]).permute(2, 0, 1).float() / 255
        label = int(self.images.labels[position])
        return (pixels if self.transform is None else self.transform(pixels)), label

    @property
    def reproduced(self) -> bool:
        return self.images.fingerprint() == self.manifest["pixels"]

    @property
    def total_bytes(self) -> int:
        """Bytes on disk of all files together."""
        return sum(self.sizes.values())


# ------------------------------------------------------------------------------------------------- writing


def save_compressed(
    path: str | Path,
    images: ImageSet,
    *,
    kept: np.ndarray | None = None,
    autoencoder: Autoencoder | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a compressed set; gives its folder.

    images: as they are trained on, dropped patches painted in; only kept patches are written. kept: (N, G) bool, None:
    everything; autoencoder: what painted the dropped ones in; settings: plain values, kept in the manifest.
    Raises InputError when the path exists (unless `overwrite` and it is a compressed set), when masks do not fit, or
    when patches are dropped and there is no autoencoder to paint them in again; DataError when it cannot be written.
    """
    path = Path(path)
    _bring_back(path)
    if path.exists() and not (overwrite and (path / MANIFEST).is_file()):
        what = "is no compressed set" if overwrite else "exists already"
        raise InputError(f"{path} {what}: give another path" + ("" if overwrite else ", or overwrite=True"))
    kept = np.ones((len(images), 1), dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    grid = round(kept.shape[1] ** 0.5) if kept.ndim == 2 else 0
    if kept.shape != (len(images), grid * grid) or not grid or images.size % grid:
        raise InputError(f"masks of {len(images)} images of {images.size} px must be (N, G); got {kept.shape}")
    if not kept.all():
        if autoencoder is None:
            raise InputError("patches are dropped but no autoencoder was given: nobody could paint them in again")
        check_fit(autoencoder, images.size)
        if autoencoder.patch_size * grid != images.size:
            raise InputError(f"the autoencoder's patches have {autoencoder.patch_size} px, not {images.size // grid}")
    else:
        autoencoder = None
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.mkdir(parents=True)
        files = {}
        for name, content in _contents(images, kept, autoencoder):
            _write(temporary / name, content)
            files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "name": images.name,
            "class_names": list(images.class_names),
            "mirror": images.mirror,
            "images": len(images),
            "size": images.size,
            "patch_size": images.size // grid,
            "kept_patches": int(kept.sum()),
            "autoencoder": None if autoencoder is None else autoencoder.describe(),
            "settings": dict(settings or {}),
            "provenance": dict(images.provenance),
            "pixels": images.fingerprint(),
            "files": files,
        }
        _write(temporary / MANIFEST, _dump(manifest))
        _replace(temporary, path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}): free space there, or give another path"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _contents(images: ImageSet, kept: np.ndarray, autoencoder: Autoencoder | None) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file but the manifest."""
    n, size = len(images), images.size
    columns, rows = _sheet_shape(size)
    for number, start in enumerate(range(0, n, columns * rows)):
        part = slice(start, start + columns * rows)
        black = images.images[part] * pixel_mask(kept[part], size)[..., None]
        sheet = _to_sheet(black, columns)
        buffer = io.BytesIO()
        Image.fromarray(sheet).save(buffer, "WEBP", lossless=True, quality=75, method=4)
        yield f"patches-{number:03d}.webp", buffer.getvalue()
    yield "masks.npy", _npy(np.packbits(kept, axis=1))
    yield "labels.npy", _npy(_smallest(images.labels))
    if images.ids.dtype.kind in "iu":
        yield "ids.npy", _npy(_smallest(images.ids))
    else:
        yield "ids.json", json.dumps(images.ids.tolist(), ensure_ascii=False).encode()
    if isinstance(autoencoder, MaskedAutoencoder):
        yield "autoencoder.safetensors", to_bytes(autoencoder)


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


def _smallest(values: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest type that holds them."""
    if not len(values):
        return values.astype(np.uint8)
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _dump(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON with its own checksum; one way to write it, so that any changed byte is noticed."""
    body = {key: value for key, value in manifest.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**body, "digest": digest}, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _replace(temporary: Path, path: Path) -> None:
    """Rename the complete folder; an old set at `path` goes away only when the new one is in its place.

    Between the two renamings the old one is found under its other name: by `open_compressed`, and by the next save.
    """
    flush_folder(temporary)
    if path.exists():
        old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
        os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            os.rename(old, path)
            raise
    else:
        os.rename(temporary, path)
    flush_folder(path.parent)
    for old in _set_aside(path):
        shutil.rmtree(old, ignore_errors=True)


def _set_aside(path: Path) -> list[Path]:
    """Old sets of this path that a replacement put aside, the latest last."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.old")
    try:
        found = [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
        return sorted(found, key=lambda entry: entry.stat().st_mtime)
    except OSError:
        return []


def _bring_back(path: Path) -> None:
    """Undo a replacement that was cut off between its two renamings."""
    aside = [] if path.exists() else _set_aside(path)
    if aside:
        os.rename(aside[-1], path)


# ------------------------------------------------------------------------------------------------- reading


def open_compressed(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    transform: Callable[[Tensor], Any] | None = None,
    progress: bool = False,
) -> CompressedSet:
    """Open a compressed set: check every file, paint in the dropped patches.

    Raises DataError, naming the file, when one is missing, damaged, or from a newer version of this library.
    """
    try:
        path = Path(path)
        aside = [] if path.exists() else _set_aside(path)
        return _open(aside[-1] if aside else path, device=device, transform=transform, progress=progress)
    except DqasError:
        raise
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # checksums agree, contents do not: a hostile or hand-made set
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{str(path)[:200]!r} is no compressed set of this library ({reason}): save it again"
        ) from error


def _open(
    path: Path, *, device: str | torch.device, transform: Callable[[Tensor], Any] | None, progress: bool
) -> CompressedSet:
    manifest, sizes = _read_manifest(path)
    content = {}
    for name, entry in manifest["files"].items():
        content[name] = _checked(path / name, entry)
        sizes[name] = len(content[name])
    n, size = manifest["images"], manifest["size"]
    n_patches = grid_of(size, manifest["patch_size"]) ** 2
    labels = _load_npy(path / "labels.npy", content).astype(np.int64)
    ids = (
        np.array(json.loads(content["ids.json"]), dtype=str)
        if "ids.json" in content
        else _load_npy(path / "ids.npy", content).astype(np.int64)
    )
    packed = _load_npy(path / "masks.npy", content)
    if packed.shape != (n, -(-n_patches // 8)) or labels.shape != (n,) or ids.shape != (n,):
        raise DataError(f"{path}: masks, labels and ids do not fit the {n} images of {MANIFEST}; save the set again")
    kept = np.unpackbits(packed, axis=1, count=n_patches).astype(bool)
    pixels = _read_sheets(path, content, n, size)
    autoencoder = _autoencoder(path, manifest, content)
    if autoencoder is not None:
        check_fit(autoencoder, size)
        pixels = reconstruct(autoencoder, pixels, kept, device=device, progress=progress)
    images = ImageSet(
        pixels,
        labels,
        ids,
        class_names=tuple(manifest["class_names"]),
        name=manifest["name"],
        mirror=manifest["mirror"],
        provenance=manifest["provenance"],
    )
    return CompressedSet(images, kept, autoencoder, manifest, sizes, transform)


def _read_manifest(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    file = path / MANIFEST
    if not file.is_file():
        raise DataError(f"no compressed set at {path}: {MANIFEST} is missing there")
    raw = file.read_bytes()
    try:
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise DataError(f"{file} is not the manifest of a compressed set")
        version = int(manifest["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged (not the manifest that was written): restore it or save again") from error
    if version > VERSION:
        raise DataError(f"{file} has format version {version}, this library reads up to {VERSION}: update the library")
    if _dump(manifest) != raw:
        raise DataError(f"{file} is damaged (its checksum differs): restore it or save the set again")
    _check_manifest(file, manifest)
    return manifest, {MANIFEST: len(raw)}


def _check_manifest(file: Path, manifest: Mapping[str, Any]) -> None:
    """DataError unless every entry that is used is of its kind, and every file lies in the folder itself."""
    kinds = {
        **dict.fromkeys(("images", "size", "patch_size"), int),
        **dict.fromkeys(("name", "pixels"), str),
        **dict.fromkeys(("files", "provenance"), dict),
        "class_names": list,
        "mirror": bool,
        "autoencoder": dict | None,
    }
    wrong = [key for key, kind in kinds.items() if key not in manifest or not isinstance(manifest[key], kind)]
    wrong += [key for key in ("images", "size", "patch_size") if isinstance(manifest.get(key), bool)]
    if wrong or manifest["images"] < 0 or manifest["size"] < 1 or manifest["patch_size"] < 1:
        what = ", ".join(wrong) or "a negative size"
        raise DataError(f"{file} is not the manifest of a compressed set (wrong or missing: {what}): save it again")
    if not all(isinstance(name, str) for name in manifest["class_names"]):
        raise DataError(f"{file}: class_names must be texts; save the set again")
    for name, entry in manifest["files"].items():
        if not _FILE.fullmatch(name) or not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
            raise DataError(f"{file} lists {name[:100]!r}, which is no file of a compressed set: save it again")


def _checked(file: Path, entry: Mapping[str, Any]) -> bytes:
    if not file.is_file():
        raise DataError(f"{file} is missing: restore it or save the set again")
    content = file.read_bytes()
    if len(content) != entry["bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise DataError(
            f"{file} is damaged (its SHA-256 differs from the manifest's): restore it or save the set again"
        )
    return content


def _load_npy(file: Path, content: Mapping[str, bytes]) -> np.ndarray:
    if file.name not in content:
        raise DataError(f"{file} is missing from the manifest: save the set again")
    array = read_npy(content[file.name], where=str(file))
    if array.dtype.kind not in "iu":
        raise DataError(f"{file} holds {array.dtype}, not whole numbers: save the set again")
    return array


def _read_sheets(path: Path, content: Mapping[str, bytes], n: int, size: int) -> np.ndarray:
    columns, rows = _sheet_shape(size)
    pixels = np.empty((n, size, size, 3), dtype=np.uint8)
    for number, start in enumerate(range(0, n, columns * rows)):
        name = f"patches-{number:03d}.webp"
        count = min(columns * rows, n - start)
        try:
            with Image.open(io.BytesIO(content[name]), formats=["WEBP"]) as image:
                if image.size != (columns * size, -(-count // columns) * size):
                    raise DataError(f"{path / name} is {image.size} pixels, no sheet of {count} images: save again")
                sheet = np.asarray(image.convert("RGB"))
            pixels[start : start + count] = _from_sheet(sheet, size, columns, count)
        except (KeyError, ValueError, OSError, UnidentifiedImageError) as error:
            raise DataError(f"{path / name} is missing from the manifest or no such sheet: save again") from error
    return pixels


def _autoencoder(path: Path, manifest: Mapping[str, Any], content: Mapping[str, bytes]) -> Autoencoder | None:
    settings = manifest["autoencoder"]
    if settings is None:
        return None
    if settings["kind"] == "pretrained":
        return PretrainedAutoencoder(settings["source"], size=settings["size"], patch_size=settings["patch_size"])
    name = "autoencoder.safetensors"
    if name not in content:
        raise DataError(f"{path / name} is missing from the manifest: save the set again")
    return from_bytes(content[name], name=str(path / name))


# ------------------------------------------------------------------------------------------------- bytes of others


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
