"""Cached stage results: settings -> one .npz and one .json of provenance, written atomically.

A result is keyed by its stage, its settings and a digest of the library's code, so a changed setting or a changed
algorithm never reads an old result. The .json is written last and carries the checksum of the .npz: a result whose
.json is missing or whose checksum differs counts as absent and is computed again.
"""

import ast
import functools
import hashlib
import io
import json
import os
import platform
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS_ROW = {"published.py", "tables.py", "plots.py", "widgets.py", "reproduce.py"}


def default_root() -> Path:
    """Where data and cached results live: $DQAS_DATA, else data/ of the checkout the working folder is in."""
    if os.environ.get("DQAS_DATA"):
        return Path(os.environ["DQAS_DATA"])
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "environment.yml").is_file() and (folder / "notebooks").is_dir():
            return folder / "data"
    return here / "data"


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal settings give equal text. Refuses NaN and unknown types."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(*parts: bytes | str) -> str:
    """First 20 hex digits of the SHA-256 of the parts, each preceded by its length."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(data)}:".encode())
        sha.update(data)
    return sha.hexdigest()[:20]


class _WithoutDocstrings(ast.NodeTransformer):
    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                node.body = body[1:]
        return node


@functools.cache
def library_digest() -> str:
    """Digest of the library's algorithms: comments, docstrings and the results row (plots, tables ...) do not count."""
    folder = Path(__file__).parent
    parts = [platform.python_version_tuple()[0]]
    for path in sorted(folder.rglob("*.py")):
        if path.name in RESULTS_ROW:
            continue
        tree = _WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))
        parts += [str(path.relative_to(folder)), ast.dump(tree)]
    return digest(*parts)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    import torch
    import torchvision

    import dqas_lib

    return {
        "dqas_lib": dqas_lib.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


@dataclass(frozen=True)
class Store:
    """A folder of cached stage results.

    root: folder, made when the first result is written. Results are mappings of name -> NumPy array.
    """

    root: Path

    @classmethod
    def default(cls) -> "Store":
        return cls(default_root() / "cache")

    def key(self, stage: str, settings: Mapping[str, Any]) -> str:
        """The 20-digit key of a result."""
        return digest(stage, canonical(settings), library_digest())

    def path(self, stage: str, settings: Mapping[str, Any]) -> Path:
        """The .npz of a result, whether it is there or not."""
        return self.root / stage / f"{self.key(stage, settings)}.npz"

    def get(self, stage: str, settings: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """The stored result, or None when it is absent, half-written or damaged."""
        path = self.path(stage, settings)
        try:
            provenance = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != provenance["sha256"]:
                return None
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def put(
        self,
        stage: str,
        settings: Mapping[str, Any],
        result: Mapping[str, np.ndarray],
        *,
        seconds: float,
        device: str = "cpu",
        parents: Mapping[str, str] | None = None,
    ) -> Path:
        """Write a result and its provenance; gives the path of the .npz."""
        path = self.path(stage, settings)
        buffer = io.BytesIO()
        np.savez(buffer, **result)
        content = buffer.getvalue()
        provenance = {
            "stage": stage,
            "settings": dict(settings),
            "library": library_digest(),
            "parents": dict(parents or {}),
            "seconds": round(seconds, 3),
            "device": device,
            "versions": versions(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_atomically(path, content)
        write_atomically(path.with_suffix(".json"), json.dumps(provenance, indent=1).encode())
        return path

    def load_or_compute(
        self,
        stage: str,
        settings: Mapping[str, Any],
        compute: Callable[[], Mapping[str, np.ndarray]],
        *,
        device: str = "cpu",
        parents: Mapping[str, str] | None = None,
    ) -> dict[str, np.ndarray]:
        """The stored result, or `compute()` stored under these settings."""
        found = self.get(stage, settings)
        if found is not None:
            return found
        started = time.perf_counter()
        result = {name: np.asarray(value) for name, value in compute().items()}
        self.put(stage, settings, result, seconds=time.perf_counter() - started, device=device, parents=parents)
        return result
