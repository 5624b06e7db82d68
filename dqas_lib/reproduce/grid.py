"""A profile's runs on their way: what is finished, what is to be done, on which slots, and how long that takes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import unknown
from dqas_lib.reproduce.folder import finished, history
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
    own: Path  # one's own results
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
    profile: Profile, own: Path, took: Mapping[str, float], *, only_failed: bool, force: bool, names: Sequence[str] = ()
) -> Grid:
    """Which runs are finished, which are to be done, and how long each takes, as the last time it did.

    took: seconds by name, for those that never ran here. names: choose these runs, and what they need.
    """
    known = {run.name: run.seconds for run in profile.runs}
    for name in names:
        if name not in known:
            raise unknown("run", name, known)
    last = history(own, profile.name)
    here = {name: record.get("seconds") for name, record in last.items() if record.get("status") == "done"}
    seconds = known | {name: value for name, value in {**took, **here}.items() if isinstance(value, int | float)}
    wanted = set(names)
    for run in profile.runs if not names else ():  # what needs comes after what it needs, and could not be run either
        failed = last.get(run.name, {}).get("status") == "failed"
        if not only_failed or failed or wanted.intersection(run.needs):
            wanted.add(run.name)
    for run in reversed(profile.runs):
        if run.name in wanted:
            wanted |= set(run.needs)
    done = {run.name for run in profile.runs if finished(own, run)}
    cached = done - wanted if force else done
    todo = [run for run in profile.runs if run.name in wanted and run.name not in cached]
    return Grid(profile, own, cached, todo, seconds)


def in_order(runs: Sequence[Run], grid: Grid, slots: Slots) -> list[Run]:
    """Wide runs first, because narrow ones fill the gaps; else as in the profile, which puts first what tells most."""
    return sorted(runs, key=lambda run: -slots.width(run, grid.profile.device))


def time_left(grid: Grid, slots: Slots, running: Mapping[str, float], bars: Mapping[str, float] | None = None) -> float:
    """About how many seconds are left: the longest run, or all work over the slots.

    running: seconds so far; bars: seconds that the bar in a run says are left. Without one a late run is taken to need
    a fifth more.
    """
    runs = [run for run in grid.todo if run.name not in grid.records]
    left = []
    for run in runs:
        so_far = running.get(run.name, 0.0)
        left.append(max(grid.estimates[run.name] - so_far, (bars or {}).get(run.name, so_far / 5), 1.0))
    widths = [slots.width(run, grid.profile.device) for run in runs]
    work = sum(seconds * width for seconds, width in zip(left, widths, strict=True))
    return max([*left, work / slots.total]) if left else 0.0


def duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
