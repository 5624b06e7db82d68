"""The manifest of a compressed set: what lies in the folder, and a checksum of each file and of itself."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import read_npy

FORMAT, VERSION, MANIFEST = "dqas-compressed", 2, "manifest.json"  # version 2: lossy sheets
MANIFEST_BYTES = 64_000_000  # of provenance, mostly: it lists the files that were left out
# the entries that are used: their kind, or the least whole number that they may be
ENTRIES: dict[str, Any] = {
    **{"images": 0, "size": 1, "patch_size": 1},
    **{"name": str, "pixels": str, "mirror": bool, "class_names": list},
    **{"files": dict, "provenance": dict, "autoencoder": dict | None},
}
FILES = re.compile(
    r"patches-\d{3,}\.(webp|avif|jpeg)|(masks|labels|ids|soft_labels|soft_classes)\.npy|ids\.json|autoencoder\.safetensors"
)


def entry_of(content: bytes) -> dict[str, Any]:
    """What the manifest says of a file."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def dump(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON with its own checksum; one way to write it, so that any changed byte is noticed."""
    body = {key: value for key, value in manifest.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**body, "digest": digest}, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def refuse_foreign_files(path: Path) -> None:
    """InputError unless this folder is a compressed set and holds no other file, so that it may be replaced."""
    try:
        manifest = json.loads(_content(path / MANIFEST, MANIFEST_BYTES))
        if manifest["format"] != FORMAT or path.is_symlink():
            raise ValueError
        ours = {MANIFEST, *manifest["files"]}
        foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in ours)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, DataError):
        raise InputError(f"{path} is no compressed set: give another path") from None
    if foreign:
        names = ", ".join(map(repr, foreign[:5])) + (" ..." if len(foreign) > 5 else "")
        raise InputError(f"{path} also holds {names}, which would be lost: move it away, or give another path")


def read_manifest(path: Path) -> tuple[dict[str, Any], int]:
    """The manifest of the set in this folder, and its bytes; DataError unless it is the one that was written."""
    file = path / MANIFEST
    if not file.is_file():
        raise DataError(f"no compressed set at {path}: {MANIFEST} is missing there")
    raw = _content(file, MANIFEST_BYTES)
    try:
        manifest = json.loads(raw)
        if manifest["format"] != FORMAT:
            raise DataError(f"{file} is not the manifest of a compressed set")
        version = manifest["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged (not the manifest that was written): restore it or save again") from error
    if version > VERSION:
        raise DataError(f"{file} has format version {version}, this library reads up to {VERSION}: update the library")
    if dump(manifest) != raw:
        raise DataError(f"{file} is damaged (its checksum differs): restore it or save the set again")
    wrong = [key for key, kind in ENTRIES.items() if key not in manifest or not _is(manifest[key], kind)]
    if wrong:
        raise DataError(f"{file} is not the manifest of a compressed set (wrong or missing: {', '.join(wrong)})")
    for name, entry in manifest["files"].items():
        if not FILES.fullmatch(name) or not isinstance(entry, dict) or not {"bytes", "sha256"} <= set(entry):
            raise DataError(f"{file} lists {name[:100]!r}, which is no file of a compressed set: save it again")
    return manifest, len(raw)


def _content(file: Path, most: int) -> bytes:
    """The content of a file; DataError, before it is read, when it is no regular file or larger than that."""
    if not file.is_file():
        raise DataError(f"{file} is missing: restore it or save the set again")
    if (size := file.stat().st_size) > most:
        raise DataError(f"{file} is damaged ({size:,} bytes in place of {most:,}): restore it or save the set again")
    return file.read_bytes()


def _is(value: Any, kind: Any) -> bool:
    if isinstance(kind, int):
        return isinstance(value, int) and not isinstance(value, bool) and value >= kind
    return isinstance(value, kind)


class Files(dict[str, bytes]):
    """The checked contents of the files of a set, by name; DataError for one that the manifest does not list."""

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path = path
        for name, entry in manifest["files"].items():
            self[name] = _content(path / name, entry["bytes"])
            if entry_of(self[name]) != {key: entry[key] for key in ("bytes", "sha256")}:
                what = "is damaged (its SHA-256 differs from the manifest's): restore it or save the set again"
                raise DataError(f"{path / name} {what}")

    def __missing__(self, name: str) -> bytes:
        raise DataError(f"{self.path / name} is missing from the manifest: save the set again")

    def array(self, name: str) -> np.ndarray:
        """The array in an .npy."""
        return read_npy(self[name], where=str(self.path / name))
