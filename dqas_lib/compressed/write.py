"""Saving: a folder with the kept patches, packed masks, labels, ids and the autoencoder.

    manifest.json             format, version, settings, and size and SHA-256 of every other file
    patches-000.webp ...      contact sheets: kept patches where they belong, dropped ones black; lossless, image after
                              image, or (format version 2) lossy, .webp, .avif or .jpeg, class after class
    masks.npy                 (N, ceil(G / 8)) uint8, a bit per patch, 1 where it is kept (version 2: if one is dropped)
    soft_labels.npy           (N, C) uint8 probabilities of a teacher in 255ths, if there are any; of more than 10
                              classes the largest 5, whose classes are in soft_classes.npy
    labels.npy, ids.npy       (N,) smallest whole-number type (ids.json where ids are texts)
    autoencoder.safetensors   half-precision weights (absent when nothing was dropped, or when it is a pretrained one)

Only open formats, nothing is unpickled. The folder is written under a temporary name and renamed when it is complete;
every file is checked against the manifest, and the manifest against itself, before anything is used. [ours]
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import features

from dqas_lib.compressed import soft_labels
from dqas_lib.compressed.codecs import (
    LOSSY_COLUMNS,
    SHEETS,
    Codec,
    Sheet,
    by_class,
    code_sheets,
    decode_sheet,
    sheet_columns,
    to_sheet,
)
from dqas_lib.compressed.manifest import FORMAT, MANIFEST, VERSION, dump, entry_of, refuse_foreign_files
from dqas_lib.core.checks import a_path, kinds
from dqas_lib.core.digests import canonical
from dqas_lib.core.errors import InputError
from dqas_lib.core.files import npy_bytes, refused_writes, whole_folder, write_atomically, writing_folder
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import Autoencoder, MaskedAutoencoder, to_bytes
from dqas_lib.patches.masks import pixel_mask
from dqas_lib.patches.reconstruct import check_fit, reconstruct


@kinds
def save_compressed(
    path: str | Path,
    images: ImageSet,
    *,
    kept: np.ndarray | None = None,
    autoencoder: Autoencoder | None = None,
    settings: Mapping[str, Any] | None = None,
    codec: Codec = SHEETS,
    sheets: Sequence[Sheet] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a compressed set; gives its folder.

    InputError for masks that do not fit or dropped patches without autoencoder; DataError for a full or locked disk.

    Args:
        path: The folder; InputError if it exists, unless `overwrite` is given and it is a compressed set and no more.
        images: As they are trained on, dropped patches reconstructed; only kept patches are written.
        kept: (N, G) bool; None: everything. autoencoder: what reconstructed the dropped patches.
        settings: Plain values, kept in the manifest.
        codec: Of the sheets. With a lossy one, other pixels come back than were given: those it decodes to.
        sheets: The lossy sheets of these images (`lossy_sheets`), when they are coded already and images decoded.
    """
    path = a_path("path", path)
    canonical(settings or {})
    with refused_writes(path):
        if (old := whole_folder(path)) != path:
            os.rename(old, path)
    if os.path.lexists(path):
        if not overwrite:
            raise InputError(f"{path} exists already: give another path, or overwrite=True")
        refuse_foreign_files(path)
    kept = np.ones((len(images), 1), dtype=bool) if kept is None else np.asarray(kept, dtype=bool)
    grid = round(kept.shape[1] ** 0.5) if kept.ndim == 2 else 0
    if kept.shape != (len(images), grid * grid) or not grid or images.size % grid:
        raise InputError(f"masks of {len(images)} images of {images.size} px must be (N, G); got {kept.shape}")
    if kept.all():
        autoencoder = None
    elif autoencoder is None:
        raise InputError("patches are dropped but no autoencoder was given: nobody could reconstruct them")
    else:
        check_fit(autoencoder, images.size)
        if autoencoder.patch_size * grid != images.size:
            raise InputError(f"the autoencoder's patches have {autoencoder.patch_size} px, not {images.size // grid}")
    if codec.quality is not None and sheets is None:
        sheets = lossy_sheets(images, codec, kept)
        images = decoded(images, sheets, kept, autoencoder)
    check = partial(refuse_foreign_files, path) if overwrite else None
    with refused_writes(path, "free space there, or give another path"), writing_folder(path, check) as folder:
        for name, content in contents(images, kept, autoencoder, settings, sheets):
            write_atomically(folder / name, content)
    return path


def lossy_sheets(images: ImageSet, codec: Codec, kept: np.ndarray | None = None) -> list[Sheet]:
    """The images as lossy sheets, class after class, dropped patches black; kept: (N, G) bool."""
    return code_sheets(blackened(images.images, kept)[by_class(images.labels)], codec, LOSSY_COLUMNS)


def blackened(pixels: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
    """(N, H, W, 3) pixels with dropped patches black; kept: (N, G) bool."""
    return pixels if kept is None else pixels * pixel_mask(kept, pixels.shape[1])[..., None]


def decoded(
    images: ImageSet, sheets: Sequence[Sheet], kept: np.ndarray | None, autoencoder: Autoencoder | None
) -> ImageSet:
    """The images as they come back from their lossy sheets, dropped patches reconstructed from what is left."""
    pixels, first, order = np.empty_like(images.images), 0, by_class(images.labels)
    for sheet in sheets:
        part = order[first : first + sheet.count]
        pixels[part] = decode_sheet(sheet.content, sheet.codec, sheet.count, LOSSY_COLUMNS, images.size)[0]
        first += sheet.count
    if autoencoder is not None and kept is not None:
        pixels = reconstruct(autoencoder, pixels, kept)
    return images.with_images(pixels)


def contents(
    images: ImageSet,
    kept: np.ndarray | None,
    autoencoder: Autoencoder | None,
    settings: Mapping[str, Any] | None,
    sheets: Sequence[Sheet] | None,
) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file, the manifest last; arguments as in `save_compressed`."""
    files = {}
    kept = np.ones((len(images), 1), dtype=bool) if kept is None else kept
    for name, content in _parts(images, kept, autoencoder, sheets):
        files[name] = entry_of(content)
        yield name, content
    manifest = {
        "format": FORMAT,
        "version": 1 if sheets is None else VERSION,
        "name": images.name,
        "class_names": list(images.class_names),
        "mirror": images.mirror,
        "images": len(images),
        "size": images.size,
        "patch_size": images.size // round(kept.shape[1] ** 0.5),
        "kept_patches": int(kept.sum()),
        "autoencoder": None if autoencoder is None else autoencoder.describe(),
        "settings": dict(settings or {}),
        "provenance": dict(images.provenance),
        "pixels": images.fingerprint(),
        "files": files,
    }
    if sheets is not None:
        kinds = {sheet.codec.format for sheet in sheets}
        decoders = {kind: features.version(kind.lower() if kind != "JPEG" else "jpg") for kind in sorted(kinds)}
        each = [[sheet.count, sheet.pixels, sheet.codec.quality] for sheet in sheets]
        sides = {sheet.codec.side for sheet in sheets}
        manifest["sheets"] = {"each": each, "side": sides.pop() if sides else None, "decoders": decoders}
    yield MANIFEST, dump(manifest)


def _parts(
    images: ImageSet, kept: np.ndarray, autoencoder: Autoencoder | None, sheets: Sequence[Sheet] | None
) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file but the manifest."""
    columns = sheet_columns(images.size)
    for number, sheet in enumerate(sheets or ()):
        yield f"patches-{number:03d}.{sheet.codec.format.lower()}", sheet.content
    for number, start in enumerate(range(0, len(images) if sheets is None else 0, columns**2)):
        part = slice(start, start + columns**2)
        black = blackened(images.images[part], kept[part])
        yield f"patches-{number:03d}.webp", SHEETS.encode(to_sheet(black, columns))
    if sheets is None or not kept.all():
        yield "masks.npy", npy_bytes(np.packbits(kept, axis=1))
    yield "labels.npy", npy_bytes(_smallest(images.labels))
    if images.soft_labels is not None:
        yield from soft_labels.files_of(images.soft_labels)
    if images.ids.dtype.kind in "iu":
        yield "ids.npy", npy_bytes(_smallest(images.ids))
    else:
        yield "ids.json", json.dumps(images.ids.tolist(), ensure_ascii=False).encode()
    if isinstance(autoencoder, MaskedAutoencoder):
        yield "autoencoder.safetensors", to_bytes(autoencoder)


def _smallest(values: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest type that holds them."""
    if not len(values):
        return values.astype(np.uint8)
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))
