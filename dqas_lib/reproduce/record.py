"""What is written down about a reproduction: the snapshot of the library, the state of git, the log of runs."""

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

from dqas_lib.reproduce.profiles import REPOSITORY
from dqas_lib.reproduce.runs import LIBRARY


def snapshot(reports: Path) -> Path:
    """A copy of the library that the runs import, so that it may be edited while they work; gives its folder."""
    source = Path(__file__).resolve().parents[1]
    files = sorted(path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    sha = hashlib.sha256()
    for path in files:
        sha.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
    target = reports / LIBRARY / sha.hexdigest()[:20]
    if not target.is_dir():
        shutil.rmtree(reports / LIBRARY, ignore_errors=True)
        building = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        for path in files:
            place = building / source.name / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        building.rename(target)
    return target


def git_state() -> dict[str, Any]:
    """The commit of the checkout and whether files differ from it; nulls outside a checkout."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(REPOSITORY), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changed is None else bool(changed)}


def read_manifest(reports: Path) -> list[dict[str, Any]]:
    """The lines of manifest.jsonl, oldest first; a line torn by a crash is left out."""
    try:
        text = (reports / "manifest.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                lines.append(value)
    return lines


def append_manifest(reports: Path, record: Mapping[str, Any]) -> None:
    """Add a line to manifest.jsonl, after a newline of its own if a crash tore the last one."""
    with open(reports / "manifest.jsonl", "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
