"""Opening: check every file, reconstruct the dropped patches, give an image set and a PyTorch data set in one."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dqas_lib.compressed import soft_labels
from dqas_lib.compressed.codecs import LOSSY_COLUMNS, SHEETS, Codec, by_class, decode_sheet, sheet_columns
from dqas_lib.compressed.manifest import MANIFEST, Files, read_manifest
from dqas_lib.core.checks import a_path
from dqas_lib.core.devices import check_device
from dqas_lib.core.errors import DataError, reason_of
from dqas_lib.core.files import whole_folder
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import Autoencoder, from_bytes
from dqas_lib.patches.masks import grid_of
from dqas_lib.patches.reconstruct import check_fit, reconstruct


@dataclass(eq=False)
class CompressedSet(Dataset[tuple[Any, int]]):
    """An opened compressed set: an `ImageSet`, and a PyTorch data set that gives (image, label).

    Args:
        images: With dropped patches reconstructed.
        kept: (N, G) bool.
        autoencoder: What reconstructed them; None when nothing was dropped.
        manifest: What was written.
        sizes: Bytes on disk of every file, the manifest included.
        transform: What is made of an image, a (3, H, W) float tensor in [0, 1], before it is given.
    """

    images: ImageSet
    kept: np.ndarray
    autoencoder: Autoencoder | None
    manifest: Mapping[str, Any]
    sizes: Mapping[str, int]
    transform: Callable[[Tensor], Any] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        pixels = torch.from_numpy(self.images.images[position]).permute(2, 0, 1).float() / 255
        label = int(self.images.labels[position])
        return (pixels if self.transform is None else self.transform(pixels)), label

    @property
    def reproduced(self) -> bool:
        """Whether the pixels are exactly those saved (another machine may differ by one level in dropped patches)."""
        return self.images.fingerprint() == self.manifest["pixels"]

    @property
    def total_bytes(self) -> int:
        """Bytes on disk of all files together."""
        return sum(self.sizes.values())


def open_compressed(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    transform: Callable[[Tensor], Any] | None = None,
    progress: bool = False,
    autoencoder: Autoencoder | None = None,
) -> CompressedSet:
    """Open a compressed set: check every file, reconstruct the dropped patches.

    Args:
        path: Its folder.
        device: Where the patches are reconstructed.
        transform: See `CompressedSet`.
        progress: Whether to show a bar.
        autoencoder: For a set that was made with a pretrained one: the same. A file may not choose what is loaded.

    Raises:
        DataError: Names the file that is missing, damaged, or from a newer version of this library.
    """
    folder, device = a_path("path", path), check_device(device)
    try:
        return _open(whole_folder(folder), device, transform, progress, autoencoder)
    except (DataError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:  # checksums agree, contents do not: a hostile or hand-made set
        what = f"{str(path)[:200]!r} is no compressed set of this library ({type(error).__name__}: {reason_of(error)})"
        raise DataError(f"{what}: save it again") from error


def _open(
    path: Path,
    device: torch.device,
    transform: Callable[[Tensor], Any] | None,
    progress: bool,
    autoencoder: Autoencoder | None,
) -> CompressedSet:
    manifest, manifest_bytes = read_manifest(path)
    files = Files(path, manifest)
    n, size, settings = manifest["images"], manifest["size"], manifest["autoencoder"]
    n_patches = grid_of(size, manifest["patch_size"]) ** 2
    labels, texts = files.array("labels.npy"), files.get("ids.json")
    lossy = manifest.get("sheets") if manifest["version"] > 1 else None
    whole = lossy is not None and "masks.npy" not in files
    packed = np.full((len(labels), -(-n_patches // 8)), 255, np.uint8) if whole else files.array("masks.npy")
    ids = files.array("ids.npy") if texts is None else np.array(json.loads(texts), dtype=str)
    if packed.shape != (n, -(-n_patches // 8)) or labels.shape != (n,) or ids.shape != (n,):
        raise DataError(f"{path}: masks, labels and ids do not fit the {n} images of {MANIFEST}; save the set again")
    kept = np.unpackbits(packed, axis=1, count=n_patches).astype(bool)
    pixels = _lossless(path, files, n, size) if lossy is None else _lossy(path, files, lossy, labels, size)
    coder: Autoencoder | None = None
    if settings is not None:
        if settings["kind"] != "pretrained":
            coder = from_bytes(files["autoencoder.safetensors"], name=str(path / "autoencoder.safetensors"))
        elif autoencoder is None:
            how = f"PretrainedAutoencoder({settings['source']!r}, size={size}, patch_size={settings['patch_size']})"
            raise DataError(f"{path} needs a pretrained autoencoder: if you trust it, give autoencoder={how}")
        else:
            coder = autoencoder
        check_fit(coder, size)
        pixels = reconstruct(coder, pixels, kept, device=device, progress=progress)
    elif not kept.all():
        raise DataError(f"{path}: patches are dropped, but {MANIFEST} names no autoencoder: save the set again")
    names = tuple(manifest["class_names"])
    soft = _soft_labels(files, len(names))
    images = ImageSet(pixels, labels, ids, names, manifest["name"], manifest["mirror"], manifest["provenance"], soft)
    sizes = {MANIFEST: manifest_bytes, **{name: len(content) for name, content in files.items()}}
    return CompressedSet(images, kept, coder, manifest, sizes, transform)


def _soft_labels(files: Files, n_classes: int) -> np.ndarray | None:
    """(N, C) uint8 probabilities of the teacher, 0 for classes that were not kept; None when there are none."""
    if soft_labels.FILE not in files:
        return None
    levels = files.array(soft_labels.FILE)
    if soft_labels.CLASSES not in files:
        return levels
    return soft_labels.spread(levels, files.array(soft_labels.CLASSES), n_classes)


def _lossless(path: Path, files: Files, n: int, size: int) -> np.ndarray:
    """(n, size, size, 3) pixels of lossless sheets, image after image."""
    pixels, columns = np.empty((n, size, size, 3), dtype=np.uint8), sheet_columns(size)
    for number, start in enumerate(range(0, n, columns**2)):
        count, name = min(columns**2, n - start), f"patches-{number:03d}.webp"
        pixels[start : start + count] = _sheet(path, files, name, SHEETS, count, columns, size)[0]
    return pixels


def _lossy(path: Path, files: Files, sheets: Mapping[str, Any], labels: np.ndarray, size: int) -> np.ndarray:
    """(N, size, size, 3) pixels of lossy sheets, class after class, back in the order of the labels."""
    names = sorted((name for name in files if name.startswith("patches-")), key=lambda name: (len(name), name))
    pixels, first, order, other = np.empty((len(labels), size, size, 3), np.uint8), 0, by_class(labels), []
    for name, (count, digest, quality) in zip(names, sheets["each"], strict=True):
        codec = Codec(name.rpartition(".")[2].upper(), quality, side=sheets["side"])
        part, first = order[first : first + count], first + count
        pixels[part], found = _sheet(path, files, name, codec, count, LOSSY_COLUMNS, size)
        other += [name] if found != digest else []
    if first != len(labels):
        raise DataError(f"{path}: the sheets hold {first} images, {MANIFEST} says {len(labels)}; save the set again")
    if other:
        warnings.warn(
            f"{path}: {', '.join(other[:3])}{' ...' if other[3:] else ''} decode to other pixels here than where they "
            f"were written (decoders there: {sheets['decoders']}); results may differ in the last digits",
            stacklevel=5,
        )
    return pixels


def _sheet(
    path: Path, files: Files, name: str, codec: Codec, count: int, columns: int, size: int
) -> tuple[np.ndarray, str]:
    try:
        return decode_sheet(files[name], codec, count, columns, size)
    except (ValueError, OSError) as error:
        raise DataError(f"{path / name} is no sheet of {count} images ({reason_of(error)}): save again") from error
