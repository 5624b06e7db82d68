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
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dqas_lib.core.errors import DqasError, InputError, RunError
from dqas_lib.reproduce.profiles import Profile, load_profile, plain_yaml
from dqas_lib.reproduce.record import append_manifest, read_manifest
from dqas_lib.reproduce.report import collect, too_large
from dqas_lib.reproduce.runs import FAILED, clear_away, finished, no_space
from dqas_lib.reproduce.scheduler import (
    Grid,
    Session,
    Slots,
    cpu_slots,
    describe,
    duration,
    estimates,
    gpu_slots,
    visible_gpus,
)

FAILED_STATUS, STOPPED_STATUS, INPUT_STATUS = 1, 130, 2


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
