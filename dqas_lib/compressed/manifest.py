"""TODO."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqas_lib.core.errors import DataError

FORMAT = "dqas-compressed"


VERSION = 1


MANIFEST = "manifest.json"


_FILE = re.compile(r"patches-\d{3,}\.webp|(masks|labels|ids)\.npy|ids\.json|autoencoder\.safetensors")


def _dump(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON with its own checksum; one way to write it, so that any changed byte is noticed."""
    body = {key: value for key, value in manifest.items() if key != "digest"}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
    return json.dumps({**body, "digest": digest}, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


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
