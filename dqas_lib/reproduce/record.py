"""What is written down about runs: their records, the log of them all, the state of git, a copy of the library.

A reports folder holds, besides what is published: `.runs/<id>`, finished runs; `.failed/<id>`, the last failure of a
run; `.attempts/`, what is being worked at; `.library/`, the copy of the library that the runs import.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dqas_lib.core.digests import LIBRARY as SOURCE

RUNS, ATTEMPTS, FAILED, LIBRARY = ".runs", ".attempts", ".failed", ".library"


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
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in (reports / "manifest.jsonl").read_text(encoding="utf-8", errors="replace").split("\n"):
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
