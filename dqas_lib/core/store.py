"""Cached stage results: settings -> one .npz and one .json of provenance, written atomically.

A result is keyed by its stage, its settings and a digest of the code that computes it (`digests.digest_of`): a changed
setting or algorithm never reads an old result, a change elsewhere costs nothing. The .json carries the checksum of the
.npz it describes and, while one replaces another, the provenance of the .npz before it; it is written first. Whenever
the writing stops, the .npz that is there is the old one or the new one, and the .json knows it: a result of which that
is not true counts as absent and is computed again.
"""

import functools
import hashlib
import io
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from dqas_lib.core import __version__
from dqas_lib.core.devices import native_bfloat16
from dqas_lib.core.digests import canonical, digest, digest_of, library_digest
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import read_npz, refused_writes, remove_leftovers, write_atomically, write_npz

STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ ,.-]*")


def default_root() -> Path:
    """Where data and cached results live: $DQAS_DATA, else data/ of the checkout the working folder is in."""
    if os.environ.get("DQAS_DATA"):
        return Path(os.environ["DQAS_DATA"])
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "environment.yml").is_file() and (folder / "notebooks").is_dir():
            return folder / "data"
    return here / "data"


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computed a result, and what its CPU computes with: AVX2, AVX512, bfloat16 ..."""
    import torch

    return {
        "dqas_lib": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "cpu": torch.backends.cpu.get_cpu_capability() + (", bfloat16" if native_bfloat16() else ""),
    }


@dataclass(frozen=True)
class Store:
    """A folder of cached stage results.

    Every method names a result by its stage, its settings as plain JSON values, and `code`: the functions, classes or
    modules of the library that compute it. A change to them or to what they import makes the stored result count as
    absent; without `code` any change of the library does.

    Args:
        root: The folder, made when the first result is written. Results are mappings of name -> NumPy array.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    @classmethod
    def default(cls) -> "Store":
        """The store under the default data folder."""
        return cls(default_root() / "cache")

    def key(self, stage: str, settings: Mapping[str, Any], code: Sequence[Any] = ()) -> str:
        """The 20-digit key of a result."""
        return digest(stage, canonical(settings), _code_digest(code))

    def path(self, stage: str, settings: Mapping[str, Any], code: Sequence[Any] = ()) -> Path:
        """The .npz of a result, whether it is there or not; InputError for a stage that is no plain name."""
        if not STAGE.fullmatch(stage):
            raise InputError(f"a stage is named by letters, digits, '_', '-' and spaces; got {stage!r}")
        return self.root / stage / f"{self.key(stage, settings, code)}.npz"

    def get(self, stage: str, settings: Mapping[str, Any], code: Sequence[Any] = ()) -> dict[str, np.ndarray] | None:
        """The stored result, or None when it is absent, half-written or damaged."""
        path = self.path(stage, settings, code)
        try:
            content = path.read_bytes()
            if self._described(path, hashlib.sha256(content).hexdigest()) is not None:
                return read_npz(io.BytesIO(content), where=str(path))
        except (OSError, DataError):
            pass
        return None

    def provenance(self, stage: str, settings: Mapping[str, Any], code: Sequence[Any] = ()) -> dict[str, Any] | None:
        """How the stored result came about, or None when there is no whole result."""
        path = self.path(stage, settings, code)
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
        code: Sequence[Any] = (),
    ) -> Path:
        """Write a result and its provenance; gives the path of the .npz.

        Raises:
            InputError: For arrays of Python objects.
            DataError: When the files cannot be written.
        """
        path = self.path(stage, settings, code)
        buffer = io.BytesIO()
        write_npz(buffer, result)
        content = buffer.getbuffer()
        provenance = {
            "stage": stage,
            "settings": dict(settings),
            "code": _code_digest(code),
            "seconds": round(seconds, 3),
            "device": device,
            "versions": versions(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        before = self.provenance(stage, settings, code)
        if before is not None:
            provenance["previous"] = {key: value for key, value in before.items() if key != "previous"}
        with refused_writes(path, "free space there or set DQAS_DATA to a folder that can be written"):
            write_atomically(path.with_suffix(".json"), json.dumps(provenance, indent=1).encode())
            write_atomically(path, content)
            remove_leftovers(path.parent)
        return path

    def load_or_compute(
        self,
        stage: str,
        settings: Mapping[str, Any],
        compute: Callable[[], Mapping[str, np.ndarray]],
        *,
        device: str = "cpu",
        code: Sequence[Any] = (),
    ) -> dict[str, np.ndarray]:
        """The stored result, or `compute()` stored under these settings.

        A result that was computed but cannot be written (a full disk) is given back all the same, with a warning.
        """
        stored = self.get(stage, settings, code)
        if stored is not None:
            return stored
        started = time.perf_counter()
        result = {name: np.asarray(value) for name, value in compute().items()}
        try:
            self.put(stage, settings, result, seconds=time.perf_counter() - started, device=device, code=code)
        except DataError as error:
            warnings.warn(f"the result of {stage!r} is not kept: {error}", RuntimeWarning, stacklevel=2)
        return result


def _code_digest(code: Sequence[Any]) -> str:
    return digest_of(*code) if code else library_digest()
