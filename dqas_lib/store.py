"""Cached stage results: settings -> one .npz and one .json of provenance, written atomically.

A result is keyed by its stage, its settings and a digest of the library's code, so a changed setting or a changed
algorithm never reads an old result. The .json carries the checksum of the .npz it describes and, while one replaces
another, the provenance of the .npz before it; it is written first. Whenever the writing stops, the .npz that is there
is the old one or the new one, and the .json knows it: a result of which that is not true counts as absent and is
computed again.
"""

import ast
import functools
import hashlib
import io
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dqas_lib.errors import DataError, InputError
from dqas_lib.npz import read_npz, write_npz

LIBRARY = Path(__file__).parent
STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ ,.-]*")
RESULTS_ROW = {
    *("published.py", "tables.py", "plots.py", "profiles.py"),
    *("frames.py", "explorers.py", "widgets.py", "pages.py"),
    *("execute.py", "runs.py", "report.py", "reproduce.py"),
}


def default_root() -> Path:
    """Where data and cached results live: $DQAS_DATA, else data/ of the checkout the working folder is in."""
    if os.environ.get("DQAS_DATA"):
        return Path(os.environ["DQAS_DATA"])
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "environment.yml").is_file() and (folder / "notebooks").is_dir():
            return folder / "data"
    return here / "data"


@contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; at the end flush it to disk and rename it to `path`.

    Readers see the old file or the new one, whenever the writing stops; an error leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make a renaming in `folder` last through a power cut, where the system can (Windows cannot open a folder)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: readers see the old file or the new one."""
    with writing_atomically(path) as file:
        file.write(content)


def remove_leftovers(folder: Path, *, older_than: float = 86_400.0) -> None:
    """Remove temporary files that a killed process left in `folder` more than `older_than` seconds ago."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > older_than:
                temporary.unlink()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal settings give equal text.

    Raises InputError for what JSON has no word for: NaN, a NumPy number, a key that is no string.
    """
    _check_keys(value)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"settings must be plain JSON values ({error}): give int, float, str, bool or None") from error


def _check_keys(value: Any) -> None:
    # json.dumps would turn {1: x} and {"1": x} into the same text
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(f"settings must have strings as keys; got {key!r}")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


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


def code_digest(paths: Iterable[Path]) -> str:
    """Digest of what these source files do: comments and docstrings do not count."""
    parts = [platform.python_version_tuple()[0]]
    for path in paths:
        tree = _WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))
        parts += [path.relative_to(LIBRARY).as_posix(), ast.dump(tree)]
    return digest(*parts)


@functools.cache
def library_digest() -> str:
    """Digest of the library's algorithms: comments, docstrings and the results row (plots, tables ...) do not count."""
    return code_digest(path for path in sorted(LIBRARY.rglob("*.py")) if path.name not in RESULTS_ROW)


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computed a result, and what its CPU computes with: AVX2, AVX512, bfloat16 ..."""
    import torch
    import torchvision

    import dqas_lib

    return {
        "dqas_lib": dqas_lib.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability() + (", bfloat16" if native_bfloat16() else ""),
    }


@functools.cache
def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers by instructions of its own (AVX512-BF16, AMX)."""
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of PyTorch cannot tell: no
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@dataclass(frozen=True)
class Store:
    """A folder of cached stage results.

    root: folder, made when the first result is written. Results are mappings of name -> NumPy array.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @classmethod
    def default(cls) -> "Store":
        return cls(default_root() / "cache")

    def key(self, stage: str, settings: Mapping[str, Any]) -> str:
        """The 20-digit key of a result."""
        return digest(stage, canonical(settings), library_digest())

    def path(self, stage: str, settings: Mapping[str, Any]) -> Path:
        """The .npz of a result, whether it is there or not; InputError for a stage that is no plain name."""
        if not STAGE.fullmatch(stage):
            raise InputError(f"a stage is named by letters, digits, '_', '-' and spaces; got {stage!r}")
        return self.root / stage / f"{self.key(stage, settings)}.npz"

    def get(self, stage: str, settings: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        """The stored result, or None when it is absent, half-written or damaged."""
        path = self.path(stage, settings)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if self._described(path, hashlib.sha256(content).hexdigest()) is None:
            return None
        try:
            return read_npz(io.BytesIO(content), where=str(path))
        except DataError:
            return None

    def provenance(self, stage: str, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """How the stored result came about, or None when there is no whole result."""
        path = self.path(stage, settings)
        try:
            return self._described(path, hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError:
            return None

    def _described(self, path: Path, sha256: str) -> dict[str, Any] | None:
        """The provenance of the .npz with this checksum: that of `path`, or the one before it."""
        try:
            provenance = json.loads(path.with_suffix(".json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        while isinstance(provenance, dict):
            if provenance.get("sha256") == sha256:
                return provenance
            provenance = provenance.get("previous")
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
        """Write a result and its provenance; gives the path of the .npz.

        Raises InputError for arrays of Python objects, DataError when the files cannot be written.
        """
        path = self.path(stage, settings)
        buffer = io.BytesIO()
        write_npz(buffer, result)
        content = buffer.getbuffer()
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
        before = self.provenance(stage, settings)
        if before is not None:
            provenance["previous"] = {key: value for key, value in before.items() if key != "previous"}
        try:
            write_atomically(path.with_suffix(".json"), json.dumps(provenance, indent=1).encode())
            write_atomically(path, content)
            remove_leftovers(path.parent)
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror or error}): free space there or set DQAS_DATA to a folder "
                "that can be written"
            ) from error
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
        """The stored result, or `compute()` stored under these settings.

        A result that was computed but cannot be written (a full disk) is given back all the same, with a warning.
        """
        found = self.get(stage, settings)
        if found is not None:
            return found
        started = time.perf_counter()
        result = {name: np.asarray(value) for name, value in compute().items()}
        try:
            self.put(stage, settings, result, seconds=time.perf_counter() - started, device=device, parents=parents)
        except DataError as error:
            warnings.warn(f"the result of {stage!r} is not kept: {error}", RuntimeWarning, stacklevel=2)
        return result
