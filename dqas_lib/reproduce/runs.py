"""One run: a notebook with its parameters, executed in a child process in an attempt folder that is renamed when done.

A run is done when the child ended with status 0, every code cell ran, and result.json says that the notebook got to its
end: papermill alone reports success after a dead kernel, and a notebook may stop in its middle with status 0. Whatever
happens, at any moment, the run's folder is either absent or whole. `execute` may be called anywhere that sees one's own
results, by threads of `reproduce` or by workers of a cluster, also twice for one run: the second waits for the first.
"""

import contextlib
import functools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import Timeout

from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.child import MARK, kill_marked
from dqas_lib.reproduce.folder import ATTEMPTS, FAILED, RUNS, finished, lock_of, place_of, read_json
from dqas_lib.reproduce.places import no_space
from dqas_lib.reproduce.profiles import Run

POLL_SECONDS = 0.1
FULL_BYTES = 2**17  # with less than this left, a failed run is put down to the full disk
KERNEL = "dqas"


@dataclass(frozen=True)
class Site:
    """What the runs of one reproduction share, as plain values that can be sent to another machine."""

    profile: str
    device: str
    own: Path  # one's own results, the same path on every machine
    library: Path  # the folder to import dqas_lib from
    data: Path
    session: Path  # a file that `reproduce` removes when the work is to stop
    git: Mapping[str, Any]  # the state of the checkout, for the records
    again: bool = False  # run what is done, too


@dataclass(frozen=True)
class Job:
    """A run, and what it is executed on."""

    run: Run
    site: Site
    gpu: str | None  # what CUDA_VISIBLE_DEVICES becomes: "" on a CPU, None leaves it as it is
    workers: int  # processes the notebook may use


def execute(job: Job) -> dict[str, Any]:
    """Execute a run and give its record: status "done", "failed" or "stopped", and why.

    Raises:
        OSError: When the folder of results cannot be written to; what is done stays done.
    """
    while job.site.session.exists():
        with contextlib.suppress(Timeout), lock_of(job.site.own, job.run.id).acquire(timeout=1.0):
            if not job.site.again and (record := finished(job.site.own, job.run)):
                return record
            attempts, prefix = job.site.own / ATTEMPTS, f"{job.run.id}-"
            with tempfile.TemporaryDirectory(dir=attempts, prefix=prefix, ignore_cleanup_errors=True) as attempt:
                _prepare(job, Path(attempt))
                return _attempt(job, Path(attempt))
    return _brief(job, "stopped")


def _prepare(job: Job, attempt: Path) -> None:
    kernel = attempt / "private" / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    # a kernel of this very Python, whatever kernels the user has installed
    argv = [sys.executable, "-P", str(job.site.library / "dqas_lib/reproduce/kernel.py"), "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    child = {"parameters": dict(job.run.parameters), "kernel": KERNEL}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    (attempt / "job.json").write_text(json.dumps(child), encoding="utf-8")
    (attempt / "source.ipynb").write_text(job.run.notebook.content, encoding="utf-8")


def environment(job: Job, attempt: Path) -> dict[str, str]:
    """The environment of a run's processes."""
    private, paths = attempt / "private", [str(job.site.library), os.environ.get("PYTHONPATH", "")]
    gpu = {} if job.gpu is None else {"CUDA_VISIBLE_DEVICES": job.gpu}
    few = "1" if job.site.device == "cpu" else str(min(4, os.cpu_count() or 1))  # a GPU leaves cores to its runs
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), few)
    return {
        **os.environ,
        **threads,
        **gpu,
        MARK: str(attempt),
        "DQAS_DATA": str(job.site.data),
        "DQAS_WORKERS": str(job.workers),
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "IPYTHONDIR": str(private / "ipython"),
        "JUPYTER_PATH": str(private),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _attempt(job: Job, attempt: Path) -> dict[str, Any]:
    started = time.time()
    with open(attempt / "log.txt", "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", str(job.site.library / "dqas_lib" / "reproduce" / "child.py"), str(attempt)],
            cwd=job.run.notebook.path.parent,
            env=environment(job, attempt),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = None
        try:
            while code is None and job.site.session.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = child.wait(POLL_SECONDS)
        finally:
            _kill(child, attempt)
    if code is None:  # the session was stopped meanwhile
        return _brief(job, "stopped")
    error = _check(attempt, code)
    full = error is not None and shutil.disk_usage(attempt).free < FULL_BYTES
    outcome, result, ended = read_json(attempt / "child.json"), read_json(attempt / "result.json"), time.time()
    papermill = {"papermill": outcome["papermill"]} if outcome else {}
    record = {
        **_brief(job, "failed" if error else "done", no_space(job.site.own) if full else error),
        **{"notebook": job.run.notebook.path.stem, "parameters": dict(job.run.parameters), "code": code},
        **{"device": job.site.device, "machine": machine(job.site.device, job.gpu), "workers": job.workers},
        **{"started": _utc(started), "ended": _utc(ended), "seconds": round(ended - started, 3)},
        **{"notebook_seconds": outcome.get("seconds"), "peak_memory_mb": outcome.get("peak_memory_mb")},
        **{"versions": {**result.get("versions", {}), **papermill}, "library": job.run.notebook.library},
        "values": result.get("values", {}),
        **job.site.git,
    }
    if not full:  # else what was written is of no use, and its room is needed
        write_atomically(attempt / "run.json", json.dumps(record, indent=1).encode())
        _keep(attempt, place_of(job.site.own, job.run, FAILED if error else RUNS))
    return record


def _brief(job: Job, status: str, error: str | None = None) -> dict[str, Any]:
    """A record without what was measured."""
    names = {"run": job.run.id, "profile": job.site.profile, "name": job.run.name}
    return {**names, "status": status, "error": error, "seconds": 0.0}


def _kill(child: subprocess.Popen, attempt: Path) -> None:
    """End what is left of a run: the child's process group, and by their mark kernel, workers and what they started."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    if child.stdin is not None:
        child.stdin.close()
    kill_marked(lambda values: values[MARK] == str(attempt))
    child.wait()


def _check(attempt: Path, code: int) -> str | None:
    """Why the attempt does not count as done, or None."""
    if code != 0:
        if error := read_json(attempt / "child.json").get("error"):
            return error
        if code < 0:
            names = {number.value: number.name for number in signal.Signals}
            return f"its process was killed by {names.get(-code, f'signal {-code}')}"
        lines = (attempt / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
        return f"its process ended with status {code}: {last[:600]}"
    try:
        cells = [cell for cell in read_json(attempt / "notebook.ipynb")["cells"] if cell["cell_type"] == "code"]
        counts = [cell["execution_count"] for cell in cells if "".join(cell["source"]).strip()]
    except (TypeError, KeyError):
        return "the executed notebook is damaged"
    if None in counts:
        return f"{counts.count(None)} of its {len(counts)} code cells were not executed"
    result = read_json(attempt / "result.json")
    if not result:
        return "it wrote no result.json: the last cell of a notebook calls run_outputs.finish(...)"
    if result.get("finished") is not True or not isinstance(result.get("values"), dict):
        return "its result.json is not what run_outputs.finish(...) writes"
    return None


def _keep(attempt: Path, target: Path) -> None:
    """Rename the attempt to its place; what was there, run again or damaged, stays beside it."""
    shutil.rmtree(attempt / "private", ignore_errors=True)
    for name in ("source.ipynb", "job.json", "child.json", "cell", "bar"):
        (attempt / name).unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(target.with_name(f"{target.name}-until-{time.strftime('%Y%m%dT%H%M%S')}"))
    attempt.rename(target)


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


@functools.cache
def machine(device: str, gpu: str | None) -> str:
    """What a run was executed on: the model of the processor, where Linux tells it, and the GPU's. Names no host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if sys.platform == "linux" else ""
    models = re.findall(r"^model name\s*: (.+)$", info, re.MULTILINE) or [platform.machine()]
    text = f"{cores} {models[0]} cores, {round(psutil.virtual_memory().total / 2**30)} GB"
    if device == "cuda":
        command = ["nvidia-smi", *(["--id", gpu] if gpu else []), "--query-gpu=name", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            names = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n")
            text = f"{names[0].strip()}, {text}"
    return text
