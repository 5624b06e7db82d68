"""Cached stage results: settings -> one .npz with its provenance inside, written atomically.

A result is keyed by its stage, its settings and a digest of the code that computes it (`digests.digest_of`): a changed
setting or algorithm never reads an old result, a change elsewhere costs nothing. The provenance is one more array of
the file, a text of JSON; a file that is half there or damaged counts as absent, and the result is computed again.
"""

import functools
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from dqas_lib.core import __version__
from dqas_lib.core.checks import a_path, kinds
from dqas_lib.core.devices import native_bfloat16
from dqas_lib.core.digests import canonical, digest, digest_of
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import read_npz, refused_writes, write_npz, writing_atomically

STAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ ,.-]*")
PROVENANCE = "provenance"  # the name of the array that holds it

Settings = Mapping[str, Any]
Result = Mapping[str, np.ndarray]
Code = Sequence[Any]


def default_root() -> Path:
    """Where data and cached results live: $DQAS_DATA, else data/ of the checkout the working folder is in."""
    if os.environ.get("DQAS_DATA"):
        return Path(os.environ["DQAS_DATA"])
    here = Path.cwd().resolve()
    checkouts = (f for f in (here, *here.parents) if (f / "environment.yml").is_file() and (f / "notebooks").is_dir())
    return next(checkouts, here) / "data"


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what computed a result, what its CPU computes with (AVX2, AVX512, bfloat16 ...), and its GPU."""
    gpu = {}
    if torch.cuda.is_available():
        made = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        gpu = {"gpu": f"{torch.cuda.get_device_name()}, {made}"}
    return {
        "dqas_lib": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "cpu": torch.backends.cpu.get_cpu_capability() + (", bfloat16" if native_bfloat16() else ""),
        **gpu,
    }


@dataclass(frozen=True)
class Store:
    """A folder of cached stage results, mappings of name -> NumPy array; it is made when the first one is written.

    Every method names a result by its stage, its settings as plain JSON values, and `code`: the functions, classes or
    modules of the library that compute it. A change to them or to what they import makes the stored result count as
    absent; without `code` any change of the library does.
    """

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", a_path("the root of a store", self.root))

    @classmethod
    def default(cls) -> "Store":
        """The store under the default data folder."""
        return cls(default_root() / "cache")

    def key(self, stage: str, settings: Settings, code: Code = ()) -> str:
        """The 20-digit key of a result."""
        return digest(stage, canonical(settings), digest_of(*code))

    @kinds
    def path(self, stage: str, settings: Settings, code: Code = ()) -> Path:
        """The .npz of a result, whether it is there or not; InputError for a stage that is no plain name."""
        if not STAGE.fullmatch(stage):
            raise InputError(f"a stage is named by letters, digits, '_', '-' and spaces; got {stage!r}")
        return self.root / stage / f"{self.key(stage, settings, code)}.npz"

    def get(self, stage: str, settings: Settings, code: Code = ()) -> dict[str, np.ndarray] | None:
        """The stored result, or None when it is absent, half-written or damaged."""
        return self._read(stage, settings, code)[0]

    def provenance(self, stage: str, settings: Settings, code: Code = ()) -> dict[str, Any] | None:
        """How the stored result came about, or None when there is no whole result."""
        return self._read(stage, settings, code)[1]

    def _read(self, stage: str, settings: Settings, code: Code) -> tuple[dict[str, np.ndarray] | None, Any]:
        path = self.path(stage, settings, code)
        with suppress(DataError, KeyError, TypeError, ValueError, RecursionError):
            arrays = read_npz(path)
            provenance = json.loads(str(arrays.pop(PROVENANCE)))
            if provenance["arrays"] == list(arrays):
                return arrays, provenance
        return None, None

    @kinds
    def put(
        self, stage: str, settings: Settings, result: Result, *, seconds: float, device: str = "cpu", code: Code = ()
    ) -> Path:
        """Write a result and its provenance; gives the path of the .npz.

        InputError for arrays of Python objects or one called "provenance", DataError when it cannot be written.
        """
        path = self.path(stage, settings, code)
        if PROVENANCE in result:
            raise InputError(f"an array of {stage!r} is called {PROVENANCE!r}, as the store calls its own: rename it")
        provenance = {
            "stage": stage,
            "settings": dict(settings),
            "code": digest_of(*code),
            "seconds": round(seconds, 3),
            "device": device,
            "versions": versions(),
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "arrays": list(result),
        }
        remedy = "free space there or set DQAS_DATA to a folder that can be written"
        with refused_writes(path, remedy), writing_atomically(path) as file:
            write_npz(file, {**result, PROVENANCE: np.array(json.dumps(provenance))})
        return path

    def load_or_compute(
        self, stage: str, settings: Settings, compute: Callable[[], Result], *, device: str = "cpu", code: Code = ()
    ) -> dict[str, np.ndarray]:
        """The stored result, or `compute()` stored under these settings.

        Of several processes that want one result, the first computes it and the others wait for it, or for its end. A
        result that was computed but cannot be written (a full disk) is given back all the same, with a warning.
        """
        stored = self.get(stage, settings, code)
        if stored is not None:
            return stored
        with _claimed(self.path(stage, settings, code)):
            if (stored := self.get(stage, settings, code)) is not None:
                return stored
            started = time.perf_counter()
            result = {name: np.asarray(value) for name, value in compute().items()}
            try:
                self.put(stage, settings, result, seconds=time.perf_counter() - started, device=device, code=code)
            except DataError as error:
                warnings.warn(f"the result of {stage!r} is not kept: {error}", RuntimeWarning, stacklevel=3)
        return result


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Compute this result alone; the claim ends with its process. Where nothing can be locked, nothing is claimed."""
    claim = FileLock(path.with_suffix(".claim"))
    with ExitStack() as held:
        with suppress(OSError, NotImplementedError):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(claim)
            held.callback(Path(claim.lock_file).unlink, missing_ok=True)
        yield
