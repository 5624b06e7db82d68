"""TODO."""

import argparse
import contextlib
import errno
import heapq
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dqas_lib.core.digests import library_digest
from dqas_lib.core.errors import RunError
from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.profiles import Profile, Run
from dqas_lib.reproduce.record import append_manifest, git_state, snapshot
from dqas_lib.reproduce.runs import ATTEMPTS, Job, execute

CONNECT_TIMEOUT = "20s"  # for a scheduler to answer


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
