"""What a benchmark measures with: seconds, peak memory, a fresh process, and the row it leaves for the report."""

import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dqas_lib.reproduce.runs import machine

REPOSITORY = Path(__file__).resolve().parents[2]
BEGIN = "measured: "


@dataclass(frozen=True)
class Row:
    """A line of the report. part: its table; what: the quantity; measured: as shown; value: as a number, in the unit of
    `measured`; wanted: the bound as shown, "" without one; met: None without one."""

    part: str
    what: str
    measured: str
    value: float
    wanted: str = ""
    met: bool | None = None


def row(part: str, what: str, measured: str, value: float, *, at_least=None, at_most=None, unit: str = "") -> Row:
    """A row whose bound is judged here, so that what is shown and what is judged cannot differ."""
    if at_least is not None:
        return Row(part, what, measured, value, f"at least {at_least:g}{unit}", bool(value >= at_least))
    if at_most is not None:
        return Row(part, what, measured, value, f"at most {at_most:g}{unit}", bool(value <= at_most))
    return Row(part, what, measured, value)


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall seconds of one call, and what it gave."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def time_text(seconds: float) -> str:
    """Seconds with three digits, in a unit one can read."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


def reset_peak() -> None:
    """Forget this process's peak memory (Linux; elsewhere the peak stays that of the whole process)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_megabytes() -> float:
    """Peak resident memory of this process since `reset_peak`, in MB (1e6 bytes); NaN where it cannot be read."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return math.nan
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def in_fresh_process(code: str, *arguments: str, threads: int | None = None) -> dict[str, Any]:
    """Run Python code that calls `give(...)` once, in a process of its own; what it gave. Its errors are raised here.

    threads: of the BLAS and of torch (None: as they come).
    """
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)]))
    environment["TQDM_DISABLE"] = "1"
    if threads is not None:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    else:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment.pop(name, None)
    prelude = f"import json, sys\ndef give(**values): print({BEGIN!r} + json.dumps(values), flush=True)\n"
    result = subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    given = [line for line in result.stdout.splitlines() if line.startswith(BEGIN)]
    if result.returncode or not given:
        raise RuntimeError(f"a measurement ended with code {result.returncode}:\n{result.stderr[-3000:]}")
    return json.loads(given[-1][len(BEGIN) :])


def processor() -> str:
    """The CPU's model, the number of cores this process may use, the memory, and the load."""
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return machine("cpu", None) + load


def versions() -> dict[str, str]:
    """Python, and the packages whose speed is measured."""
    import numpy
    import torch
    import torchvision

    return {
        "Python": platform.python_version(),
        "NumPy": numpy.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def save(path: Path, rows: list[Row], *, command: str, machine: str, seconds: float) -> None:
    """Write a run's rows and where they come from as JSON."""
    content = {
        "command": command,
        "machine": machine,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 1),
        "rows": [asdict(entry) for entry in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def earlier(path: Path, machine: str, again: set[str]) -> list[Row]:
    """Rows that a run with these versions, on a machine whose name begins so, left; but for the parts in `again`."""
    found = json.loads(path.read_text()) if path.is_file() else None
    if found is None or not found["machine"].startswith(machine) or found["versions"] != versions():
        return []
    return [Row(**entry) for entry in found["rows"] if entry["part"] not in again]
