"""A reproduction from its profile to its verdict: run what is to be run, collect, compare with what is published."""

import argparse
import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dqas_lib.core.errors import InputError, RunError
from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.folder import FAILED, clear_away, place_of
from dqas_lib.reproduce.grid import Grid, choose_slots, plan, time_left
from dqas_lib.reproduce.places import KIT, Places, find_profile, is_full, places_of
from dqas_lib.reproduce.profiles import load_profile, plain_yaml
from dqas_lib.reproduce.report import publish, read_provenance, render
from dqas_lib.reproduce.scheduler import Session
from dqas_lib.reproduce.verify import Verdict, verify

FAILED_STATUS, STRICT_STATUS = 1, 3


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


def reproduce(options: argparse.Namespace, command: str) -> int:
    """Carry out a command (shown at the end, to repeat what failed); gives the exit status."""
    places = places_of(find_profile(options.profile), options.reports)
    profile = load_profile(options.profile, settings=parse_settings(options.set), device=options.device)
    own, published = places.own, places.published
    if options.slots is not None and options.slots < 1:
        raise InputError(f"--slots must be at least 1; got {options.slots}")
    if options.publish and (options.set or published.is_relative_to(KIT)):
        raise InputError("--publish is for a checkout and for a profile's own parameters: leave --set away")
    theirs = read_provenance(published / f"{profile.name}.json") or {"runs": []}
    took = {run["name"]: run["seconds"] for run in theirs["runs"]}
    chosen = {"only_failed": options.only_failed, "force": options.force, "names": options.run}
    grid = plan(profile, own, took, **chosen)
    slots = choose_slots(profile, options.slots, cluster=bool(options.scheduler), dry_run=options.dry_run)
    if options.dry_run:
        print(render("plan.txt", own, grid=grid, slots=slots, left=time_left(grid, slots, {})))
        return 0
    with locked(own):
        if killed := clear_away(own):
            print(f"ended {killed} processes that an earlier reproduction had left")
        started = time.monotonic()
        data = Path(os.environ.get("DQAS_DATA") or places.root / "data").resolve()
        if grid.todo:
            Session(grid, slots, data, again=options.force).run(options.scheduler)
        verdict = verify(profile, own, published, options.run)
        print(_end(grid, verdict, places, command=command, seconds=time.monotonic() - started))
        if options.publish:
            large = publish(profile, own, published, options.run)
            print(f"published in {published}: look at it with git diff, then commit")
            print("".join(f"note: {path} is larger than 2 MB: too large to be committed\n" for path in large), end="")
    if any(not grid.done(run.name) for run in grid.todo):
        return FAILED_STATUS
    return STRICT_STATUS if options.strict and not verdict.as_published else 0


def _end(grid: Grid, verdict: Verdict, places: Places, *, command: str, seconds: float) -> str:
    """What is printed at the end; also writes the page of one's own figures beside the published ones."""
    page, runs = places.own / f"{grid.profile.name}-and-published.html", grid.profile.runs
    ran = (place_of(places.own, each) for each in (*grid.todo, *runs) if grid.done(each.name))
    figures = []
    for each in runs:
        for path in sorted((place_of(places.own, each) / "figures").glob("*.png")):
            other = places.published / "figures" / grid.profile.name / each.name / path.name
            beside = Path(os.path.relpath(other, places.own)).as_posix() if other.is_file() else None
            figures.append((each.name, path.relative_to(places.own).as_posix(), beside))
    write_atomically(page, render("page.html", places.own, verdict=verdict, figures=figures).encode())
    lab = "make lab" if (places.root / "Makefile").is_file() else f"jupyter lab {runs[0].notebook.path.parent}"
    failed = {name: record for name, record in grid.records.items() if record["status"] != "done"}
    notebooks = {each.name: place_of(places.own, each, FAILED) / "notebook.ipynb" for each in runs}
    told = {"grid": grid, "verdict": verdict, "failed": failed, "command": command, "seconds": seconds}
    return render("end.txt", places.own, page=page, ran=next(ran, None), lab=lab, notebooks=notebooks, **told)


@contextlib.contextmanager
def locked(own: Path) -> Iterator[None]:
    """Hold the folder of results for this process alone; the system gives it back however the process ends."""
    holder, way_out = own / ".holder", "give another folder with --reports DIR"
    try:
        own.mkdir(parents=True, exist_ok=True)
        lock = FileLock(own / ".lock").acquire(blocking=False)
    except Timeout:
        name = holder.read_text(encoding="utf-8").strip() if holder.is_file() else "another process"
        raise RunError(f"another reproduction ({name}) works in {own}: wait for it, or {way_out}") from None
    except OSError as error:
        if is_full(error):
            raise
        raise RunError(f"cannot write to {own} ({error.strerror}): {way_out}") from None
    with lock:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
