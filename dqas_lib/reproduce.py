"""The reproduction: a profile's notebooks, executed as a grid, on this machine or on a cluster; figures and tables.

    python -m dqas_lib.reproduce --profile quick

What is finished and unchanged is not run again, so a stopped reproduction goes on when the same command is given again.

On a cluster (--scheduler, the extra "distributed"), this checkout, the reports folder and the data must lie under equal
paths on every worker; start the workers with one thread and one GPU each: `dask worker ADDRESS --nthreads 1`.
"""

import argparse
import contextlib
import errno
import fcntl
import hashlib
import heapq
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dqas_lib.errors import DqasError, InputError, RunError
from dqas_lib.profiles import REPOSITORY, Profile, Run, load_profile, plain_yaml
from dqas_lib.report import collect, too_large
from dqas_lib.runs import ATTEMPTS, FAILED, LIBRARY, Job, clear_away, execute, finished, no_space
from dqas_lib.store import library_digest, write_atomically

CONNECT_TIMEOUT = "20s"  # for a scheduler to answer
FAILED_STATUS, STOPPED_STATUS, INPUT_STATUS = 1, 130, 2


@dataclass
class Slots:
    """What runs are executed on at the same time: cores of a CPU, or places on GPUs.

    gpus: the CUDA_VISIBLE_DEVICES value of each free place, "" on a CPU, None for a cluster, whose workers know.
    """

    total: int
    free: list[str | None]

    def width(self, run: Run, device: str) -> int:
        """Slots a run takes: its cores on a CPU, one place on a GPU."""
        return min(run.cores or self.total, self.total) if device == "cpu" else 1

    def take(self, width: int) -> list[str | None]:
        taken, self.free = self.free[:width], self.free[width:]
        return taken


@dataclass
class Grid:
    """A profile's runs on their way.

    estimates: seconds by run name; records: of the runs that ended in this session, by name.
    """

    profile: Profile
    reports: Path
    cached: set[str]
    todo: list[Run]
    estimates: Mapping[str, float]
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def done(self, name: str) -> bool:
        return name in self.cached or self.records.get(name, {}).get("status") == "done"

    def ready(self, run: Run) -> bool:
        return all(self.done(need) for need in run.needs)

    def blocked(self, run: Run) -> bool:
        ended = {name for name, record in self.records.items() if record["status"] != "done"}
        return any(need in ended for need in run.needs)


def cpu_slots(cores: int) -> Slots:
    return Slots(cores, [""] * cores)


def gpu_slots(gpus: Sequence[str], total: int | None, per_gpu: int) -> Slots:
    """`total` places (by default per_gpu on each), dealt to the GPUs in turn."""
    total = total or len(gpus) * per_gpu
    return Slots(total, [gpus[i % len(gpus)] for i in range(total)])


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES would name each."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE texts as parameters; values are YAML: 0.1, [0, 1], cifar10."""
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--set takes NAME=VALUE, such as SEEDS=[0,1]; got {text!r}")
        try:
            settings[name] = plain_yaml(value)
        except ValueError:
            raise InputError(f"--set {name}: {value!r} is no YAML value") from None
    return settings


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dqas_lib.reproduce", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--profile", default="quick", help="a name in notebooks/profiles, or the path of a .yaml file (default: quick)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter for every notebook that has it")
    add("--device", choices=("auto", "cpu", "cuda"), help="instead of the profile's device")
    add("--slots", type=int, help="runs at a time: cores of a CPU, or places on GPUs (default: all cores, all GPUs)")
    add("--scheduler", metavar="ADDRESS", help="run on the Dask cluster at this address")
    add("--reports", type=Path, help="where reports are written (default: reports/ of the checkout)")
    add("--dry-run", action="store_true", help="say what would run and for how long, and do nothing")
    add("--only-failed", action="store_true", help="only what failed last time, what that needs and what waits for it")
    add("--force", action="store_true", help="run what is finished, too")
    add("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry; exit status 0: all finished, 1: a run failed, 2: the command cannot be carried out, 130: ended."""
    options = arguments(argv)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return reproduce(options, shown_command(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED_STATUS
    except (DqasError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {explain(error, options)}", file=sys.stderr)
        return INPUT_STATUS
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: Any) -> None:
    """SIGTERM ends a reproduction as Ctrl-C does, also where interrupts are ignored: `nohup make reproduce &`."""
    raise KeyboardInterrupt


def explain(error: Exception, options: argparse.Namespace) -> str:
    """An error as one line that says what to do."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_space(options.reports or "the reports")
    return " ".join(str(error).split())


def shown_command(argv: Sequence[str]) -> str:
    """The command as the user would type it again, without the options that only choose among runs."""
    left = [argument for argument in argv if argument not in ("--only-failed", "--force", "--dry-run")]
    return shlex.join(["python", "-m", "dqas_lib.reproduce", *left])


def reproduce(options: argparse.Namespace, command: str) -> int:
    """Carry out a command; gives the exit status."""
    profile = load_profile(options.profile, settings=parse_settings(options.set), device=options.device)
    root = profile.path.parent.parent.parent if profile.path.parent.name == "profiles" else profile.path.parent
    reports = (options.reports or root / "reports").resolve()
    if options.slots is not None and options.slots < 1:
        raise InputError(f"--slots must be at least 1; got {options.slots}")
    history = read_manifest(reports)
    grid = plan(profile, reports, history, only_failed=options.only_failed, force=options.force)
    slots = choose_slots(profile, options)
    if options.dry_run:
        print(describe(grid, slots))
        return 0
    with locked(reports):
        killed = clear_away(reports)
        if killed:
            print(f"ended {killed} processes that an earlier reproduction had left")
        _complete_manifest(grid, history)
        started = time.monotonic()
        try:
            if grid.todo:
                session = Session(grid, slots, options, root)
                session.run()
        finally:
            readme = collect(profile, reports)
        print(summary(grid, readme, command, time.monotonic() - started))
        for name in too_large(reports, profile):
            print(f"note: {name} is larger than 2 MB: too large to be committed")
    return FAILED_STATUS if any(not grid.done(run.name) for run in grid.todo) else 0


def choose_slots(profile: Profile, options: argparse.Namespace) -> Slots:
    """Slots by the command line, the profile and the machine."""
    if options.scheduler:
        total = options.slots or 10_000  # the cluster queues what it cannot start
        return Slots(total, [None] * total)
    if profile.device == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cpu_slots(options.slots or cores)
    gpus = visible_gpus()
    if not gpus and not options.dry_run:
        raise InputError(f"profile {profile.name} runs on CUDA, but no CUDA device is visible here: give --device cpu")
    gpus = gpus or ["0"]  # a plan can be looked at anywhere
    return gpu_slots(gpus, options.slots, profile.per_gpu)


def plan(
    profile: Profile, reports: Path, history: Sequence[Mapping[str, Any]], *, only_failed: bool, force: bool
) -> Grid:
    """Which runs are finished, which are to be done, and how long each is expected to take."""
    last = {(line.get("profile"), line.get("name")): line.get("status") for line in history}
    wanted: set[str] = set()
    for run in profile.runs:  # those that need come after those needed: they could not be run either
        if not only_failed or last.get((profile.name, run.name)) == "failed" or wanted.intersection(run.needs):
            wanted.add(run.name)
    for run in reversed(profile.runs):
        if run.name in wanted:
            wanted |= set(run.needs)
    done = {run.name for run in profile.runs if finished(reports, run.id) is not None}
    cached = done if not force else done - wanted
    todo = [run for run in profile.runs if run.name in wanted and run.name not in cached]
    return Grid(profile, reports, cached, todo, estimates(profile, history))


def estimates(profile: Profile, history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Expected seconds by run name: what it took last time, else what the profile says."""
    measured = {}
    for line in history:
        if line.get("status") == "done" and isinstance(line.get("seconds"), int | float):
            measured[line.get("profile"), line.get("name")] = float(line["seconds"])
    return {run.name: measured.get((profile.name, run.name), run.seconds) for run in profile.runs}


def in_order(runs: Sequence[Run], grid: Grid, slots: Slots) -> list[Run]:
    """Wide runs first, because narrow ones fill the gaps; else as in the profile, which puts first what tells most."""
    return sorted(runs, key=lambda run: -slots.width(run, grid.profile.device))


def time_left(grid: Grid, slots: Slots, running: Mapping[str, float]) -> float:
    """Expected seconds until all is done: the rest of the grid, played through with the estimates.

    running: name -> seconds since its start.
    """
    left = {name: max(seconds - running.get(name, 0.0), 1.0) for name, seconds in grid.estimates.items()}
    open_ = in_order([run for run in grid.todo if run.name not in grid.records], grid, slots)
    busy = [(left[run.name], slots.width(run, grid.profile.device), run.name) for run in open_ if run.name in running]
    waiting = [run for run in open_ if run.name not in running]
    heapq.heapify(busy)
    free, now = slots.total - sum(width for _, width, _ in busy), 0.0
    done = {run.name for run in grid.profile.runs if grid.done(run.name)}
    while True:
        for run in [run for run in waiting if done.issuperset(run.needs)]:
            width = slots.width(run, grid.profile.device)
            if width > free:
                break
            waiting.remove(run)
            heapq.heappush(busy, (now + left[run.name], width, run.name))
            free -= width
        if not busy:
            return now
        now, width, name = heapq.heappop(busy)
        free += width
        done.add(name)


def describe(grid: Grid, slots: Slots) -> str:
    """What --dry-run prints."""
    names = [run.name for run in grid.todo]
    width = max(len(run.name) for run in grid.profile.runs)
    where = {"cpu": "cores", "cuda": "places on GPUs"}[grid.profile.device]
    lines = [f"profile {grid.profile.name} on {grid.profile.device}: {len(grid.profile.runs)} runs"]
    for run in grid.profile.runs:
        state = "finished" if run.name in grid.cached else "to run" if run.name in names else "not chosen"
        about = f"about {duration(grid.estimates[run.name])}" if state == "to run" else ""
        after = f"after {', '.join(run.needs)}" if run.needs else ""
        lines.append(f"  {run.name:{width}}  {state:10}  {about:14} {after}".rstrip())
    lines.append(f"{len(grid.cached)} finished, {len(names)} to run")
    if names and slots.free[0] is not None:
        lines[-1] += f", about {duration(time_left(grid, slots, {}))} on {slots.total} {where}"
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Session:
    """Runs a grid to its end, on this machine or on a cluster."""

    def __init__(self, grid: Grid, slots: Slots, options: argparse.Namespace, root: Path) -> None:
        self.grid, self.slots, self.options = grid, slots, options
        self.data = Path(os.environ.get("DQAS_DATA") or root / "data").resolve()
        self.code = {"library": library_digest(), **git_state()}
        self.library = snapshot(grid.reports)
        self.file = grid.reports / ATTEMPTS / f"session-{uuid.uuid4().hex}"
        self.running: dict[Future, tuple[Run, float, list[str | None]]] = {}

    def run(self) -> None:
        """Execute all that is to do; KeyboardInterrupt ends the children first."""
        write_atomically(self.file, b"")
        view = View(len(self.grid.todo))
        with executor(self.options.scheduler, self.slots.total) as pool:
            try:
                self._loop(pool, view)
            except BaseException:
                self.file.unlink(missing_ok=True)
                for future in self.running:
                    future.cancel()
                wait(self.running, timeout=20)
                raise
            finally:
                self.file.unlink(missing_ok=True)
                view.close()

    def _loop(self, pool: Executor, view: "View") -> None:
        pending = in_order(self.grid.todo, self.grid, self.slots)
        while pending or self.running:
            pending = [run for run in pending if not self._skip(run, view)]
            for run in [run for run in pending if self.grid.ready(run)]:
                width = self.slots.width(run, self.grid.profile.device)
                if width > len(self.slots.free):
                    break
                taken = self.slots.take(width)
                pending.remove(run)
                view.line(f"start {run.name}")
                self.running[pool.submit(execute, self._job(run, taken))] = (run, time.monotonic(), taken)
            ended, _ = wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in ended:
                run, _, taken = self.running.pop(future)
                self.slots.free += taken
                self._ended(run, future, view)
            self._tick(view)

    def _tick(self, view: "View") -> None:
        now = time.monotonic()
        elapsed = {run.name: now - started for run, started, _ in self.running.values()}
        view.tick(elapsed, time_left(self.grid, self.slots, elapsed))

    def _skip(self, run: Run, view: "View") -> bool:
        if not self.grid.blocked(run):
            return False
        failed = [need for need in run.needs if not self.grid.done(need)]
        self.grid.records[run.name] = {"status": "not run", "error": f"it needs {', '.join(failed)}"}
        view.line(f"not run {run.name}: it needs {', '.join(failed)}", step=True)
        return True

    def _job(self, run: Run, taken: Sequence[str | None]) -> Job:
        profile = self.grid.profile
        return Job(
            run=run.id,
            name=run.name,
            profile=profile.name,
            notebook=run.notebook.path.stem,
            content=run.notebook.content,
            parameters=run.parameters,
            device=profile.device,
            gpu=taken[0] if taken[0] is not None or profile.device == "cuda" else "",
            workers=len(taken) if profile.device == "cpu" and taken[0] is not None else max(run.cores, 1),
            reports=self.grid.reports,
            library=self.library,
            data=self.data,
            folder=run.notebook.path.parent,
            session=self.file,
            code=self.code,
            again=self.options.force,
            debug=self.options.debug,
        )

    def _ended(self, run: Run, future: Future, view: "View") -> None:
        error = future.exception()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise error
        if error is not None and self.options.debug:
            raise error
        if error is None:
            record = future.result()
            append_manifest(self.grid.reports, record)
        else:
            record = {"run": run.id, "status": "failed", "error": f"{type(error).__name__}: {error}", "seconds": 0.0}
        self.grid.records[run.name] = record
        self._tick(view)
        told = f": {record['error']}" if record.get("error") else ""
        view.line(f"{record['status']} {run.name} in {duration(record['seconds'])}{told}", step=True)


class View:
    """Progress: a bar with the time left on a terminal, plain lines elsewhere."""

    def __init__(self, total: int) -> None:
        self.total, self.count, self.left = total, 0, ""
        self.live = sys.stderr.isatty()
        form = "{desc} {bar} {n_fmt}/{total_fmt} runs, {elapsed} gone{postfix}"
        self.bar = tqdm(total=total, disable=not self.live, bar_format=form, desc="reproduce")

    def line(self, text: str, *, step: bool = False) -> None:
        self.count += step
        if self.live:
            self.bar.write(text)
            self.bar.update(int(step))
            return
        tail = f" ({self.count}/{self.total}{self.left})" if step else ""
        print(f"{time.strftime('%H:%M:%S')} {text}{tail}", flush=True)

    def tick(self, elapsed: Mapping[str, float], left: float) -> None:
        self.left = f", about {duration(left)} left" if left else ""
        if self.live:
            names = ", ".join(f"{name} {duration(seconds)}" for name, seconds in elapsed.items())
            self.bar.set_postfix_str(f"about {duration(left)} left; {names}" if names else "")

    def close(self) -> None:
        self.bar.close()


@contextlib.contextmanager
def executor(scheduler: str | None, slots: int) -> Iterator[Executor]:
    """Threads of this process, each minding a child, or a Dask cluster's executor."""
    if scheduler is None:
        with ThreadPoolExecutor(max_workers=slots) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError:
        raise RunError("--scheduler needs the package distributed: pip install 'dqas-kit[distributed]'") from None
    try:
        client = Client(scheduler, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
    with client:
        pool = client.get_executor(pure=False, retries=3)
        yield pool


@contextlib.contextmanager
def locked(reports: Path) -> Iterator[None]:
    """Hold the reports folder for this process alone; the system gives it back however the process ends."""
    try:
        reports.mkdir(parents=True, exist_ok=True)
        file = open(reports / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 - closed below, with the lock
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(
            f"cannot write to {reports} ({error.strerror}): give another folder with --reports DIR"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise RunError(
                f"another reproduction ({holder}) works in {reports}: wait for it, or give another folder with "
                "--reports DIR"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def snapshot(reports: Path) -> Path:
    """A copy of the library that the runs import, so that it may be edited while they work; gives its folder."""
    source = Path(__file__).resolve().parent
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    sha = hashlib.sha256()
    for path in files:
        sha.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
    target = reports / LIBRARY / sha.hexdigest()[:20]
    if not target.is_dir():
        shutil.rmtree(reports / LIBRARY, ignore_errors=True)
        building = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        for path in files:
            place = building / source.name / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        building.rename(target)
    return target


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether files differ from it; nulls outside a checkout."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(REPOSITORY), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changed is None else bool(changed)}


def read_manifest(reports: Path) -> list[dict[str, Any]]:
    """The lines of manifest.jsonl, oldest first; a line torn by a crash is left out."""
    try:
        text = (reports / "manifest.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                lines.append(value)
    return lines


def append_manifest(reports: Path, record: Mapping[str, Any]) -> None:
    """Add a line to manifest.jsonl, after a newline of its own if a crash tore the last one."""
    with open(reports / "manifest.jsonl", "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _complete_manifest(grid: Grid, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the lines of finished runs that a crash came between: their own records tell."""
    known = {line.get("run") for line in history if line.get("status") == "done"}
    for run in grid.profile.runs:
        record = finished(grid.reports, run.id)
        if record is not None and run.id not in known:
            append_manifest(grid.reports, record)


def summary(grid: Grid, readme: Path, command: str, seconds: float) -> str:
    """What is printed at the end."""
    done = [name for name, record in grid.records.items() if record["status"] == "done"]
    failed = {name: record for name, record in grid.records.items() if record["status"] != "done"}
    lines = [
        f"{grid.profile.name}: {len(done)} run{'s' * (len(done) != 1)} done in {duration(seconds)}, "
        f"{len(grid.cached)} had been done before, {len(failed)} failed. Results: {readme}"
    ]
    for name, record in failed.items():
        lines.append(f"  {record['status']} {name}: {record['error']}")
        notebook = grid.reports / FAILED / record.get("run", "") / "notebook.ipynb"
        if notebook.is_file():
            lines.append(f"    look into {notebook}")
    if failed:
        lines.append(f"repeat with: {command} --only-failed")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
