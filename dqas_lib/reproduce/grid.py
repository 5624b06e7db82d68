"""A profile's runs on their way: what is finished, what is to be done, on which slots, and how long that takes."""

import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqas_lib.core.errors import InputError
from dqas_lib.reproduce.folder import FAILED, finished
from dqas_lib.reproduce.profiles import Profile, Run


@dataclass
class Slots:
    """What runs are executed on at the same time: cores of a CPU, or places on GPUs."""

    total: int
    free: list[str | None]  # CUDA_VISIBLE_DEVICES of each free place: "" on a CPU, None on a cluster (its workers know)

    def width(self, run: Run, device: str) -> int:
        """Slots a run takes: its cores on a CPU, one place on a GPU."""
        return min(run.cores or self.total, self.total) if device == "cpu" else 1


def choose_slots(profile: Profile, total: int | None, *, cluster: bool = False, dry_run: bool = False) -> Slots:
    """All cores of this machine, or `per_gpu` places on each of its GPUs, unless a total is given."""
    if cluster:  # it queues what it cannot start
        return Slots(total or 10_000, [None] * (total or 10_000))
    if profile.device == "cpu":
        total = total or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        return Slots(total, [""] * total)
    gpus = visible_gpus() or ["0"] * dry_run  # a plan can be looked at anywhere
    if not gpus:
        raise InputError(f"profile {profile.name} runs on CUDA, but no CUDA device is visible here: give --device cpu")
    total = total or len(gpus) * profile.per_gpu
    return Slots(total, [gpus[place % len(gpus)] for place in range(total)])


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES would name each."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@dataclass
class Grid:
    """A profile's runs, and how far they are."""

    profile: Profile
    reports: Path
    cached: set[str]  # names of the runs that were done before
    todo: list[Run]
    estimates: Mapping[str, float]  # seconds by name
    records: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the runs that ended meanwhile, by name

    def done(self, name: str) -> bool:
        """Whether a run is done, before or now."""
        return name in self.cached or self.records.get(name, {}).get("status") == "done"

    def lost(self, run: Run) -> list[str]:
        """What a run needs and cannot get any more."""
        return [need for need in run.needs if need in self.records and not self.done(need)]


def plan(
    profile: Profile, reports: Path, history: Sequence[Mapping[str, Any]], *, only_failed: bool, force: bool
) -> Grid:
    """Which runs are finished, which are to be done, and how long each takes, as the last time it did."""
    lines = [line for line in history if line.get("profile") == profile.name]
    last = {str(line.get("name")): line.get("status") for line in lines}
    took = [line for line in lines if line.get("status") == "done" and isinstance(line.get("seconds"), int | float)]
    seconds = {run.name: run.seconds for run in profile.runs} | {
        str(line.get("name")): line["seconds"] for line in took
    }
    wanted: set[str] = set()
    for run in profile.runs:  # those that need come after those needed: they could not be run either
        if not only_failed or last.get(run.name) == "failed" or wanted.intersection(run.needs):
            wanted.add(run.name)
    for run in reversed(profile.runs):
        if run.name in wanted:
            wanted |= set(run.needs)
    done = {run.name for run in profile.runs if finished(reports, run.id)}
    cached = done - wanted if force else done
    todo = [run for run in profile.runs if run.name in wanted and run.name not in cached]
    return Grid(profile, reports, cached, todo, seconds)


def in_order(runs: Sequence[Run], grid: Grid, slots: Slots) -> list[Run]:
    """Wide runs first, because narrow ones fill the gaps; else as in the profile, which puts first what tells most."""
    return sorted(runs, key=lambda run: -slots.width(run, grid.profile.device))


def time_left(grid: Grid, slots: Slots, running: Mapping[str, float]) -> float:
    """Expected seconds until all is done: the rest of the grid, played through; running: seconds so far, by name."""
    width = {run.name: slots.width(run, grid.profile.device) for run in grid.profile.runs}
    left = {name: max(grid.estimates[name] - running.get(name, 0.0), 1.0) for name in width}
    waiting = in_order([run for run in grid.todo if run.name not in {*grid.records, *running}], grid, slots)
    busy = [(left[name], name) for name in running]
    heapq.heapify(busy)
    free, now = slots.total - sum(width[name] for name in running), 0.0
    done = {run.name for run in grid.profile.runs if grid.done(run.name)}
    while True:
        for run in [run for run in waiting if done.issuperset(run.needs)]:
            if width[run.name] > free:
                break
            waiting.remove(run)
            heapq.heappush(busy, (now + left[run.name], run.name))
            free -= width[run.name]
        if not busy:
            return now
        now, name = heapq.heappop(busy)
        free += width[name]
        done.add(name)


def describe(grid: Grid, slots: Slots) -> str:
    """What --dry-run prints."""
    width, to_run = max(len(run.name) for run in grid.profile.runs), len(grid.todo)
    where = {"cpu": "cores", "cuda": "places on GPUs"}[grid.profile.device]
    lines = [f"profile {grid.profile.name} on {grid.profile.device}: {len(grid.profile.runs)} runs"]
    for run in grid.profile.runs:
        state = "finished" if run.name in grid.cached else "to run" if run in grid.todo else "not chosen"
        about = f"about {duration(grid.estimates[run.name])}" if run in grid.todo else ""
        after = f"after {', '.join(run.needs)}" if run.needs else ""
        lines.append(f"  {run.name:{width}}  {state:10}  {about:14} {after}".rstrip())
    lines.append(f"{len(grid.cached)} finished, {to_run} to run")
    if to_run and slots.free[0] is not None:
        lines[-1] += f", about {duration(time_left(grid, slots, {}))} on {slots.total} {where}"
    return "\n".join(lines)


def summary(grid: Grid, readme: Path, command: str, seconds: float) -> str:
    """What is printed at the end."""
    failed = {name: record for name, record in grid.records.items() if record["status"] != "done"}
    done = len(grid.records) - len(failed)
    lines = [
        f"{grid.profile.name}: {done} run{'s' * (done != 1)} done in {duration(seconds)}, "
        f"{len(grid.cached)} had been done before, {len(failed)} failed. Results: {readme}"
    ]
    for name, record in failed.items():
        lines.append(f"  {record['status']} {name}: {record['error']}")
        notebook = grid.reports / FAILED / record.get("run", "") / "notebook.ipynb"
        if notebook.is_file():
            lines.append(f"    look into {notebook}")
    return "\n".join(lines + [f"repeat with: {command} --only-failed"] * bool(failed))


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
