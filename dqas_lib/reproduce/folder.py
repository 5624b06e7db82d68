"""The folder of one's own results: runs and their records, locks on what is worked at, a copy of the library.

It holds `runs/<notebook>-<id>`, finished runs; `failed/<notebook>-<id>`, failures; a page per profile; `.attempts/`,
what is being worked at; `.locks/<id>`, held by who works at a run; `.library/`, the copy of the library that the runs
import. A finished run is never written again: new code or
parameters make another id, and what `--force` runs again is kept beside it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dqas_lib.core.digests import LIBRARY as SOURCE
from dqas_lib.reproduce.child import MARK, kill_marked
from dqas_lib.reproduce.profiles import Run

RUNS, FAILED, ATTEMPTS, LIBRARY, LOCKS = "runs", "failed", ".attempts", ".library", ".locks"
SESSION = "session-"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; {} when the file is absent, damaged or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def place_of(own: Path, run: Run, kind: str = RUNS) -> Path:
    """The folder of a run, whether it is there or not."""
    return own / kind / f"{run.notebook.path.stem}-{run.id}"


def finished(own: Path, run: Run) -> dict[str, Any]:
    """The record of a run that is done, else {}."""
    record = read_json(place_of(own, run) / "run.json")
    whole = record.keys() >= {"parameters", "seconds", "machine", "device", "versions", "values"}
    return record if whole and record.get("run") == run.id and record.get("status") == "done" else {}


def history(own: Path, profile: str) -> dict[str, dict[str, Any]]:
    """The last record of each of a profile's runs that ended, by the run's name, whatever its id was then."""
    records = [read_json(path) for kind in (RUNS, FAILED) for path in (own / kind).glob("*/run.json")]
    records.sort(key=lambda record: str(record.get("ended")))
    return {str(record.get("name")): record for record in records if record.get("profile") == profile}


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether files differ from it; nulls outside a checkout."""
    status = ["status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".", ":!reports"]
    try:
        command = ["git", "-C", str(SOURCE.parent), *status]
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
    return {"commit": lines[0].split()[-1], "changed": not all(line.startswith("#") for line in lines)}


def snapshot(own: Path) -> Path:
    """A copy of the library that the runs import, so that it may be edited while they work; gives its folder."""
    sha = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and not {"__pycache__", "kit"}.intersection(path.parts):
            sha.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes())
    target = own / LIBRARY / sha.hexdigest()[:20]
    if not target.is_dir():
        shutil.rmtree(own / LIBRARY, ignore_errors=True)
        building = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        shutil.copytree(SOURCE, building / SOURCE.name, ignore=shutil.ignore_patterns("__pycache__", "kit"))
        building.rename(target)
    return target


def lock_of(own: Path, run: str) -> FileLock:
    """The lock of a run; the system gives it back however its holder ends."""
    (own / LOCKS).mkdir(exist_ok=True)
    return FileLock(own / LOCKS / run)


def clear_away(own: Path) -> int:
    """End what outlived an earlier reproduction, and remove attempts that nobody works at; gives how many it ended."""
    for session in (own / ATTEMPTS).glob(f"{SESSION}*"):  # workers of a cluster that belong to it stop
        session.unlink(missing_ok=True)
    folder = str(own / ATTEMPTS) + os.sep
    killed = kill_marked(lambda values: values[MARK].startswith(folder))
    for attempt in (own / ATTEMPTS).glob("*-*"):
        with contextlib.suppress(Timeout), lock_of(own, attempt.name.split("-")[0]).acquire(blocking=False):
            shutil.rmtree(attempt, ignore_errors=True)
    return killed
