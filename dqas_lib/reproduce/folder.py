"""The reports folder: records of runs and the log of them all, leases on what is worked at, a copy of the library.

Besides what is published it holds `.runs/<id>`, finished runs; `.failed/<id>`, the last failure of a run; `.attempts/`,
what is being worked at, each with a lease; `.library/`, the copy of the library that the runs import.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from dqas_lib.core.digests import LIBRARY as SOURCE
from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.child import MARK, kill_marked

RUNS, ATTEMPTS, FAILED, LIBRARY = ".runs", ".attempts", ".failed", ".library"
OWNER = "DQAS_OWNER"
LEASE_SECONDS = 30.0  # a lease of another machine that was not renewed for so long has lost its holder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; {} when the file is absent, damaged or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def finished(reports: Path, run: str) -> dict[str, Any]:
    """The record of a run that is done, else {}."""
    record = read_json(reports / RUNS / run / "run.json")
    return record if record.get("run") == run and record.get("status") == "done" else {}


def read_manifest(reports: Path) -> list[dict[str, Any]]:
    """The lines of manifest.jsonl, oldest first; a line torn by a crash is left out."""
    manifest, lines = reports / "manifest.jsonl", []
    for line in manifest.read_text(encoding="utf-8", errors="replace").split("\n") if manifest.is_file() else ():
        with contextlib.suppress(ValueError, RecursionError):
            lines.append(json.loads(line))
    return [line for line in lines if isinstance(line, dict)]


def append_manifest(reports: Path, record: Mapping[str, Any]) -> None:
    """Add a line to manifest.jsonl, after a newline of its own if a crash tore the last one."""
    with open(reports / "manifest.jsonl", "ab+") as file:
        file.seek(max(file.tell() - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(record, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether files differ from it; nulls outside a checkout."""
    status = ["status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".", ":!reports"]
    try:
        command = ["git", "-C", str(SOURCE.parent), *status]
        lines = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "changed": None}
    return {"commit": lines[0].split()[-1], "changed": not all(line.startswith("#") for line in lines)}


def snapshot(reports: Path) -> Path:
    """A copy of the library that the runs import, so that it may be edited while they work; gives its folder."""
    sha = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            sha.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes())
    target = reports / LIBRARY / sha.hexdigest()[:20]
    if not target.is_dir():
        shutil.rmtree(reports / LIBRARY, ignore_errors=True)
        building = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        shutil.copytree(SOURCE, building / SOURCE.name, ignore=shutil.ignore_patterns("__pycache__"))
        building.rename(target)
    return target


def owner() -> dict[str, Any]:
    """This process, as leases and the environment of a run name it."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time()}


def write_lease(attempt: Path) -> None:
    """Say who holds an attempt; the file's time is renewed while it works."""
    write_atomically(attempt / "lease.json", json.dumps(owner()).encode())


def lives(holder: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is still there, and is no other that was given its number later."""
    try:
        process = psutil.Process(holder["pid"])
        return abs(process.create_time() - holder["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError):
        return False


def alive(attempt: Path) -> bool:
    """Whether somebody works at an attempt: its holder lives, or is on another machine and renews its lease."""
    holder = read_json(attempt / "lease.json")
    if holder.get("host") == socket.gethostname():
        return lives(holder)
    with contextlib.suppress(OSError):
        if holder:
            return time.time() - (attempt / "lease.json").stat().st_mtime < LEASE_SECONDS
        return time.time() - attempt.stat().st_mtime < 2
    return False


def clear_away(reports: Path) -> int:
    """Remove attempts that nobody works at, and kill processes that outlived their parent; gives how many."""
    folder = str(reports / ATTEMPTS) + os.sep

    def orphan(values: Mapping[str, str]) -> bool:
        holder = json.loads(values.get(OWNER, "{}")) if values[MARK].startswith(folder) else {}
        return holder.get("host") == socket.gethostname() and not lives(holder)

    killed = kill_marked(orphan)
    for attempt in (reports / ATTEMPTS).glob("*"):
        if attempt.is_dir() and not alive(attempt):
            shutil.rmtree(attempt, ignore_errors=True)
    return killed
