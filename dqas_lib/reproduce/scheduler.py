"""Carrying out a grid: runs are started as slots get free, on this machine or on a Dask cluster; progress is shown."""

import contextlib
import math
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dqas_lib.core.errors import RunError
from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.folder import ATTEMPTS, SESSION, git_state, snapshot
from dqas_lib.reproduce.grid import Grid, Slots, duration, in_order, time_left
from dqas_lib.reproduce.places import is_full
from dqas_lib.reproduce.profiles import Run
from dqas_lib.reproduce.runs import Job, Site, execute

CONNECT_TIMEOUT = "20s"  # for a scheduler to answer
PLAIN_SECONDS = 10.0  # between lines of progress where there is no terminal


class Session:
    """Runs a grid to its end."""

    def __init__(self, grid: Grid, slots: Slots, data: Path, *, again: bool = False) -> None:
        self.grid, self.slots, self.left, self.said = grid, slots, 0.0, time.monotonic()
        self.running: dict[Future[dict[str, Any]], tuple[Run, float, list[str | None]]] = {}
        form = "{n_fmt}/{total_fmt} runs {bar:8} {elapsed} gone{postfix}"  # one line, on a terminal only
        self.bar = tqdm(total=len(grid.todo), disable=None, bar_format=form, dynamic_ncols=True)
        session, library = grid.own / ATTEMPTS / f"{SESSION}{uuid.uuid4().hex}", snapshot(grid.own)
        profile, device = grid.profile.name, grid.profile.device
        self.site = Site(profile, device, grid.own, library, data, session, git=git_state(), again=again)

    def run(self, scheduler: str | None = None) -> None:
        """Execute all that is to do; KeyboardInterrupt ends the children first."""
        write_atomically(self.site.session, b"")
        with executor(scheduler, self.slots.total) as pool:
            try:
                self._loop(pool)
            finally:
                self.site.session.unlink(missing_ok=True)
                for future in self.running:
                    future.cancel()
                wait(self.running, timeout=20)
                self.bar.close()

    def _loop(self, pool: Executor) -> None:
        device, slots = self.grid.profile.device, self.slots
        pending = in_order(self.grid.todo, self.grid, slots)
        while pending or self.running:
            pending = [run for run in pending if not self._skip(run)]
            for run in [run for run in pending if all(map(self.grid.done, run.needs))]:
                width = slots.width(run, device)
                if width > len(slots.free):
                    break
                taken, slots.free = slots.free[:width], slots.free[width:]
                pending.remove(run)
                self._say(f"start {run.name}")
                on_cluster = taken[0] is None
                gpu = "" if on_cluster and device == "cpu" else taken[0]
                workers = width if device == "cpu" and not on_cluster else max(run.cores, 1)
                future = pool.submit(execute, Job(run, self.site, gpu, workers))
                self.running[future] = (run, time.monotonic(), taken)
            for future in wait(self.running, timeout=0.5, return_when=FIRST_COMPLETED)[0]:
                run, _, taken = self.running.pop(future)
                slots.free += taken
                self._ended(run, future)
            self._tick()

    def _skip(self, run: Run) -> bool:
        """Whether a run cannot be run, because what it needs failed."""
        lost = ", ".join(self.grid.lost(run))
        if lost:
            self.grid.records[run.name] = {"status": "not run", "error": f"it needs {lost}"}
            self._say(f"not run {run.name}: it needs {lost}", ended=True)
        return bool(lost)

    def _ended(self, run: Run, future: Future[dict[str, Any]]) -> None:
        error = future.exception()
        if error is None:
            record = future.result()
        elif is_full(error):
            raise error
        else:
            record = {"run": run.id, "status": "failed", "error": f"{type(error).__name__}: {error}", "seconds": 0.0}
        self.grid.records[run.name] = record
        self._tick()
        reason = f": {record['error']}" if record.get("error") else ""
        self._say(f"{record['status']} {run.name} in {duration(record['seconds'])}{reason}", ended=True)

    def _say(self, text: str, *, ended: bool = False) -> None:
        """Print a line; at the end of a run also how far the whole is."""
        left = f", about {duration(self.left)} left" if self.left else ""
        tail = f" ({len(self.grid.records)}/{len(self.grid.todo)}{left})" if ended else ""
        with tqdm.external_write_mode():
            print(f"{time.strftime('%H:%M:%S')} {text}{tail}", flush=True)
        self.bar.update(int(ended))
        self.said = time.monotonic()

    def _tick(self) -> None:
        now = time.monotonic()
        elapsed = {run.name: now - started for run, started, _ in self.running.values()}
        told = {run.name: progress(self.site.own, run.id) for run, *_ in self.running.values()}
        bars = {name: end - time.time() for name, (_, end) in told.items() if end}
        self.left = time_left(self.grid, self.slots, elapsed, bars)
        where = "; ".join(f"{name} {text}".strip() for name, (text, _) in told.items())
        self.bar.set_postfix_str(f"about {duration(self.left)} left; {where}" if where else "")
        if where and self.bar.disable and now - self.said > PLAIN_SECONDS:
            self._say(f"{where}; about {duration(self.left)} left")


def progress(own: Path, run: str) -> tuple[str, float | None]:
    """How far a run is: the cell at work, the outermost bar in it, and the time when that bar will be at its end."""
    parts, end = [], None
    for attempt in (own / ATTEMPTS).glob(f"{run}-*"):
        for name in ("cell", "bar"):  # written by child.py and kernel.py
            with contextlib.suppress(OSError, ValueError):
                text, _, when = (attempt / name).read_text(encoding="utf-8", errors="replace").partition("\n")
                parts.append("".join(filter(str.isprintable, text[:80])))
                end = float(when) if math.isfinite(float(when or "nan")) else end
    return ", ".join(filter(None, parts)), end


@contextlib.contextmanager
def executor(scheduler: str | None, slots: int) -> Iterator[Executor]:
    """Threads of this process, each minding a child, or the executor of the Dask cluster at an address."""
    if scheduler is None:
        with ThreadPoolExecutor(max_workers=slots) as pool:
            yield pool
        return
    try:
        from distributed import Client

        client = Client(scheduler, timeout=CONNECT_TIMEOUT)
    except ImportError:
        raise RunError("--scheduler needs the package distributed: pip install 'dqas-kit[distributed]'") from None
    except (OSError, ValueError) as error:
        raise RunError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
    with client:
        yield client.get_executor(pure=False, retries=3)
