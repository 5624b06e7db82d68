"""Leases: who works at an attempt, so that it is neither started twice nor taken from the living."""

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.child import MARK, kill_marked
from dqas_lib.reproduce.record import ATTEMPTS, read_json

OWNER = "DQAS_OWNER"
LEASE_SECONDS = 30.0  # a lease of another machine that was not renewed for so long has lost its holder


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
