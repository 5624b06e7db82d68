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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dqas_lib.compressed.codecs import _sheet_shape, _to_sheet
from dqas_lib.compressed.manifest import FORMAT, MANIFEST, VERSION, _dump
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import flush_folder
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import Autoencoder, MaskedAutoencoder, to_bytes
from dqas_lib.patches.masks import pixel_mask
from dqas_lib.patches.reconstruct import check_fit


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
