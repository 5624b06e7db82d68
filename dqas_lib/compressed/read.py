"""TODO."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from dqas_lib.compressed.codecs import _from_sheet, _sheet_shape
from dqas_lib.compressed.manifest import MANIFEST, _checked, _read_manifest
from dqas_lib.compressed.write import _set_aside
from dqas_lib.core.errors import DataError, DqasError
from dqas_lib.core.files import read_npy
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import Autoencoder, from_bytes
from dqas_lib.patches.masks import grid_of
from dqas_lib.patches.pretrained import PretrainedAutoencoder
from dqas_lib.patches.reconstruct import check_fit, reconstruct


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
