"""The reproduction: a profile's notebooks, executed as a grid, on this machine or on a cluster; figures and tables.

    python -m dqas_lib.reproduce --profile quick

What is finished and unchanged is not run again, so a stopped reproduction goes on when the same command is given again.

On a cluster (--scheduler, the extra "distributed"), this checkout, the reports folder and the data must lie under equal
paths on every worker; start the workers with one thread and one GPU each: `dask worker ADDRESS --nthreads 1`.
"""

import argparse
import contextlib
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dqas_lib.core.errors import DqasError, InputError, RunError
from dqas_lib.reproduce.folder import append_manifest, clear_away, finished, read_manifest
from dqas_lib.reproduce.grid import choose_slots, describe, plan, summary
from dqas_lib.reproduce.profiles import DEVICES, load_profile, plain_yaml
from dqas_lib.reproduce.report import collect, too_large
from dqas_lib.reproduce.runs import no_space
from dqas_lib.reproduce.scheduler import DISK_FULL, Session

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
    parser = argparse.ArgumentParser(prog="python -m dqas_lib.reproduce", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--profile", default="quick", help="a name in notebooks/profiles, or the path of a .yaml file (default: quick)")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter for every notebook that has it")
    add("--device", choices=DEVICES, help="instead of the profile's device")
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
    words = sys.argv[1:] if argv is None else argv
    again = [word for word in words if word not in ("--only-failed", "--force", "--dry-run")]
    try:
        return reproduce(options, shlex.join(["python", "-m", "dqas_lib.reproduce", *again]))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED_STATUS
    except (DqasError, OSError) as error:
        if options.debug:
            raise
        full = isinstance(error, OSError) and error.errno in DISK_FULL
        text = no_space(options.reports or "the reports") if full else " ".join(str(error).split())
        print(f"error: {text}", file=sys.stderr)
        return INPUT_STATUS
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(*_: Any) -> None:
    """SIGTERM ends a reproduction as Ctrl-C does, also where interrupts are ignored: `nohup make reproduce &`."""
    raise KeyboardInterrupt


def reproduce(options: argparse.Namespace, command: str) -> int:
    """Carry out a command (shown at the end, to repeat what failed); gives the exit status."""
    profile = load_profile(options.profile, settings=parse_settings(options.set), device=options.device)
    root = profile.path.parent.parent.parent if profile.path.parent.name == "profiles" else profile.path.parent
    reports = (options.reports or root / "reports").resolve()
    if options.slots is not None and options.slots < 1:
        raise InputError(f"--slots must be at least 1; got {options.slots}")
    history = read_manifest(reports)
    grid = plan(profile, reports, history, only_failed=options.only_failed, force=options.force)
    slots = choose_slots(profile, options.slots, cluster=bool(options.scheduler), dry_run=options.dry_run)
    if options.dry_run:
        print(describe(grid, slots))
        return 0
    with locked(reports):
        if killed := clear_away(reports):
            print(f"ended {killed} processes that an earlier reproduction had left")
        known = {line.get("run") for line in history if line.get("status") == "done"}
        for run in profile.runs:  # lines that a crash came between: the runs' own records tell
            if run.id not in known and (record := finished(reports, run.id)):
                append_manifest(reports, record)
        started = time.monotonic()
        data = Path(os.environ.get("DQAS_DATA") or root / "data").resolve()
        try:
            if grid.todo:
                Session(grid, slots, data, again=options.force, debug=options.debug).run(options.scheduler)
        finally:
            readme = collect(profile, reports)
        print(summary(grid, readme, command, time.monotonic() - started))
        for name in too_large(reports, profile):
            print(f"note: {name} is larger than 2 MB: too large to be committed")
    return FAILED_STATUS if any(not grid.done(run.name) for run in grid.todo) else 0


@contextlib.contextmanager
def locked(reports: Path) -> Iterator[None]:
    """Hold the reports folder for this process alone; the system gives it back however the process ends."""
    holder = reports / ".holder"
    try:
        reports.mkdir(parents=True, exist_ok=True)
        lock = FileLock(reports / ".lock").acquire(blocking=False)
    except Timeout:
        name = holder.read_text(encoding="utf-8").strip() if holder.is_file() else "another process"
        way_out = "wait for it, or give another folder with --reports DIR"
        raise RunError(f"another reproduction ({name}) works in {reports}: {way_out}") from None
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        reason = f"cannot write to {reports} ({error.strerror})"
        raise RunError(f"{reason}: give another folder with --reports DIR") from None
    with lock:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
