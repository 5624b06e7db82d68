"""One run: a notebook with its parameters, executed in a child process in an attempt folder that is renamed when done.

A run is done when the child ended with status 0, every code cell ran, and result.json says that the notebook got to its
end: papermill alone reports success after a dead kernel, and a notebook may stop in its middle with status 0. Whatever
happens, at any moment, `.runs/<id>` is either absent or whole. `execute` may be called anywhere that sees the reports
folder, by threads of `reproduce` or by workers of a cluster, also twice for one run: the second waits for the first.
"""

import contextlib
import functools
import itertools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.child import MARK, kill_marked

RUNS, ATTEMPTS, FAILED, LIBRARY = ".runs", ".attempts", ".failed", ".library"


LEASE_SECONDS = 30.0  # a lease of another machine that was not renewed for so long has lost its holder


POLL_SECONDS = 0.1


FULL_BYTES = 2**17  # with less than this left, a failed run is put down to the full disk


OWNER = "DQAS_OWNER"


KERNEL = "dqas"


_count = itertools.count()


@dataclass(frozen=True)
class Job:
    """All that executing a run needs, as plain values that can be sent to another machine.

    reports: the reports folder, under the same path on every machine; library: the folder to import dqas_lib from;
    session: a file that `reproduce` removes when the work is to stop; gpu: what CUDA_VISIBLE_DEVICES becomes ("" on a
    CPU, None leaves it as it is); workers: processes the notebook may use; again: run it although it is done.
    """

    run: str
    name: str
    profile: str
    notebook: str
    content: str
    parameters: Mapping[str, Any]
    device: str
    gpu: str | None
    workers: int
    reports: Path
    library: Path
    data: Path
    folder: Path
    session: Path
    code: Mapping[str, Any]
    again: bool = False
    debug: bool = False

    @property
    def done(self) -> Path:
        return self.reports / RUNS / self.run


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished run's folder, or None."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("run") == folder.name else None


def finished(reports: Path, run: str) -> dict[str, Any] | None:
    """The record of a run that is done, or None."""
    record = read_record(reports / RUNS / run)
    return record if record and record.get("status") == "done" else None


def execute(job: Job) -> dict[str, Any]:
    """Execute a run and give its record: status "done", "failed" or "stopped", and why.

    Raises OSError when the reports folder cannot be written to; what is done stays done.
    """
    if not job.session.exists():
        return _record(job, "stopped")
    while not job.again:
        found = finished(job.reports, job.run)
        if found is not None:
            return found
        if not any(alive(attempt) for attempt in _attempts(job.reports, job.run)):
            break
        if not job.session.exists():
            return _record(job, "stopped")
        time.sleep(1.0)
    attempt = job.reports / ATTEMPTS / f"{job.run}-{socket.gethostname()}-{os.getpid()}-{next(_count)}"
    try:
        _prepare(job, attempt)
        return _attempt(job, attempt)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(attempt)


def _prepare(job: Job, attempt: Path) -> None:
    attempt.mkdir(parents=True)
    write_lease(attempt)
    (attempt / "source.ipynb").write_text(job.content, encoding="utf-8")
    child = {"parameters": dict(job.parameters), "kernel": KERNEL, "debug": job.debug}
    (attempt / "job.json").write_text(json.dumps(child), encoding="utf-8")
    # a kernel of this very Python, whatever kernels the user has installed
    kernel = attempt / "private" / "kernels" / KERNEL
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


def environment(job: Job, attempt: Path) -> dict[str, str]:
    """The environment of a run's processes."""
    values = dict(os.environ)
    paths = [str(job.library), values.get("PYTHONPATH", "")]
    values |= {
        MARK: str(attempt),
        OWNER: json.dumps(_owner()),
        "DQAS_RUN_DIR": str(attempt),
        "DQAS_DATA": str(job.data),
        "DQAS_WORKERS": str(job.workers),
        "TQDM_DISABLE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "IPYTHONDIR": str(attempt / "private" / "ipython"),
        "JUPYTER_PATH": str(attempt / "private"),
        "JUPYTER_RUNTIME_DIR": str(attempt / "private" / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    values |= {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    if job.gpu is not None:
        values["CUDA_VISIBLE_DEVICES"] = job.gpu
    return values


def _attempt(job: Job, attempt: Path) -> dict[str, Any]:
    started = time.time()
    with open(attempt / "log.txt", "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", str(job.library / "dqas_lib" / "reproduce" / "child.py"), str(attempt)],
            cwd=job.folder,
            env=environment(job, attempt),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = _wait(job, child, attempt)
        finally:
            _kill(child, attempt)
    if code is None:
        return _record(job, "stopped")
    record = _record(job, "done", code=code, started=started, attempt=attempt)
    error = _check(job, attempt, code)
    if error is not None:
        record |= {"status": "failed", "error": error}
    if error == no_space(job.reports):
        return record  # what was written is of no use, and its room is needed
    write_atomically(attempt / "run.json", json.dumps(record, indent=1).encode())
    _keep(job, attempt, job.done if error is None else job.reports / FAILED / job.run)
    return record


def _wait(job: Job, child: subprocess.Popen, attempt: Path) -> int | None:
    """The child's exit status; None when the session was stopped meanwhile."""
    renewed = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(POLL_SECONDS)
        if not job.session.exists():
            return None
        if time.monotonic() - renewed > LEASE_SECONDS / 10:
            renewed = time.monotonic()
            os.utime(attempt / "lease.json")


def _kill(child: subprocess.Popen, attempt: Path) -> None:
    """End what is left of a run: the child's process group, and by their mark kernel, workers and what they started."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.stdin.close()
    kill_marked(lambda values: values[MARK] == str(attempt))
    child.wait()


def _check(job: Job, attempt: Path, code: int) -> str | None:
    """Why the attempt does not count as done, or None."""
    told = _json(attempt / "child.json")
    if code != 0 and shutil.disk_usage(attempt).free < FULL_BYTES:
        return no_space(job.reports)
    if code != 0:
        if told and told.get("error"):
            return told["error"]
        if code < 0:
            return f"its process was killed by {_signal(-code)}"
        return f"its process ended with status {code}: {_last_log_line(attempt)}"
    notebook = _json(attempt / "notebook.ipynb")
    try:
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]
        left = sum(cell["execution_count"] is None for cell in cells)
    except (TypeError, KeyError):
        return "the executed notebook is damaged"
    if left:
        return f"{left} of its {len(cells)} code cells were not executed"
    result = _json(attempt / "result.json")
    if result is None:
        return "it wrote no result.json: the last cell of a notebook calls tables.finish(...)"
    if result.get("finished") is not True or not isinstance(result.get("values"), dict):
        return "its result.json is not what tables.finish(...) writes"
    return None


def no_space(reports: Path | str) -> str:
    """The sentence about a full disk."""
    return f"no space is left on the disk of {reports}: free some and start again; finished runs are kept"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_log_line(attempt: Path) -> str:
    lines = (attempt / "log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")[:600]


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _keep(job: Job, attempt: Path, target: Path) -> None:
    """Rename the attempt to its place. Of two attempts at one run the first one stays, unless it is run again."""
    shutil.rmtree(attempt / "private", ignore_errors=True)
    for name in ("source.ipynb", "job.json", "lease.json", "child.json"):
        (attempt / name).unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.parent.name == FAILED or job.again or read_record(target) is None:
        with contextlib.suppress(FileNotFoundError):
            aside = attempt.with_name(f"{attempt.name}-old")
            target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
    try:
        attempt.rename(target)
    except OSError:
        if read_record(target) is None:
            raise


def _record(
    job: Job, status: str, *, code: int | None = None, started: float | None = None, attempt: Path | None = None
) -> dict[str, Any]:
    told = (_json(attempt / "child.json") if attempt else None) or {}
    result = (_json(attempt / "result.json") if attempt else None) or {}
    moment = time.time()
    started = moment if started is None else started
    return {
        "run": job.run,
        "profile": job.profile,
        "name": job.name,
        "notebook": job.notebook,
        "status": status,
        "code": code,
        "error": None,
        "parameters": dict(job.parameters),
        "device": job.device,
        "machine": machine(job.device, job.gpu),
        "workers": job.workers,
        "started": _utc(started),
        "ended": _utc(moment),
        "seconds": round(moment - started, 3),
        "notebook_seconds": told.get("seconds"),
        "peak_memory_mb": told.get("peak_memory_mb"),
        "versions": {**result.get("versions", {}), **({"papermill": told["papermill"]} if told else {})},
        **job.code,
    }


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


@functools.cache
def machine(device: str, gpu: str | None) -> str:
    """What a run was executed on: the processor, or the GPU's name. Names no host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{cores} {platform.machine()} cores, {round(psutil.virtual_memory().total / 2**30)} GB"
    if device == "cuda":
        which = [] if not gpu else ["--id", gpu]
        command = ["nvidia-smi", *which, "--query-gpu=name", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            names = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n")
            text = f"{names[0].strip()}, {text}"
    return text


def _owner() -> dict[str, Any]:
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time()}


def write_lease(attempt: Path) -> None:
    """Say who holds an attempt; the file's time is renewed while it works."""
    write_atomically(attempt / "lease.json", json.dumps(_owner()).encode())


def lives(owner: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is still there, and is no other that was given its number later."""
    try:
        process = psutil.Process(owner["pid"])
        return abs(process.create_time() - owner["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError):
        return False


def alive(attempt: Path) -> bool:
    """Whether somebody works at an attempt: its holder lives, or is on another machine and renews its lease."""
    lease = attempt / "lease.json"
    owner = _json(lease)
    with contextlib.suppress(OSError):
        if owner is None:
            return time.time() - attempt.stat().st_mtime < 2
        if owner.get("host") == socket.gethostname():
            return lives(owner)
        return time.time() - lease.stat().st_mtime < LEASE_SECONDS
    return False


def _attempts(reports: Path, run: str) -> list[Path]:
    return list((reports / ATTEMPTS).glob(f"{run}-*"))


def clear_away(reports: Path) -> int:
    """Remove attempts that nobody works at, and kill processes that outlived their parent; gives how many."""
    folder = str(reports / ATTEMPTS) + os.sep

    def orphan(values: Mapping[str, str]) -> bool:
        if not values[MARK].startswith(folder):
            return False
        owner = json.loads(values.get(OWNER, "{}"))
        return owner.get("host") == socket.gethostname() and not lives(owner)

    killed = kill_marked(orphan)
    for attempt in (reports / ATTEMPTS).glob("*"):
        if attempt.is_dir() and not alive(attempt):
            shutil.rmtree(attempt, ignore_errors=True)
    return killed
