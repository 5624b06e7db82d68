"""Fault injection: run some code and cut it off at every step it takes on the disk.

A step is the opening of a file for writing, or a flush, renaming, removal or making of a folder, below a given folder.
At a cut the step does not happen, and neither does any later one: what cleans up after an error finds that nothing
works any more, as if the process had been killed. `power=True` also cuts the power: files whose contents were not
flushed (os.fsync) lose the second half of them, even if they were renamed meanwhile.

    for cut in cuts(folder, restore, write):   # restore() makes the old state, write() goes to the new one
        ... look at the folder: it must show the old state or the new one
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_RENAMES = {"os.rename", "os.link", "os.symlink"}
_CHANGES = {"os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime"}


class Cut(BaseException):
    """The process is killed here. No `except Exception` survives it."""


@dataclass
class _Run:
    folder: str
    stop_at: int | None
    steps: int = 0
    dead: bool = False
    trail: list[str] = field(default_factory=list)
    flushed: set[int] = field(default_factory=set)

    def step(self, what: str) -> None:
        if self.dead:
            raise Cut
        if self.steps == self.stop_at:
            self.dead = True
            raise Cut
        self.steps += 1
        self.trail.append(what)


_current: _Run | None = None


def _below(path: object) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    return os.path.abspath(os.fsdecode(path)).startswith(_current.folder)


def _hook(event: str, arguments: tuple) -> None:
    if _current is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)) if isinstance(flags, int) else False
        if (writes or (isinstance(mode, str) and set(mode) & set("wax+"))) and _below(path):
            _current.step(f"open {os.path.basename(os.fsdecode(path))}")
    elif event in _RENAMES and (_below(arguments[0]) or _below(arguments[1])):
        _current.step(f"{event} {os.path.basename(os.fsdecode(arguments[1]))}")
    elif event in _CHANGES and _below(arguments[0]):
        _current.step(f"{event} {os.path.basename(os.fsdecode(arguments[0]))}")


_installed = False


@contextlib.contextmanager
def _watching(run: _Run) -> Iterator[None]:
    global _current, _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    fsync = os.fsync

    def watched(handle: int) -> None:
        run.step("fsync")
        fsync(handle)
        run.flushed.add(os.fstat(handle).st_ino)

    os.fsync = watched
    _current = run
    try:
        yield
    finally:
        _current = None
        os.fsync = fsync


def _snapshot(folder: Path) -> dict[int, bytes]:
    return {path.stat().st_ino: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def steps(folder: Path, action: Callable[[], object]) -> list[str]:
    """The steps `action` takes below `folder`, uncut."""
    run = _Run(os.path.abspath(folder), None)
    with _watching(run):
        action()
    return run.trail


def cuts(
    folder: Path, restore: Callable[[], object], action: Callable[[], object], *, power: bool = False
) -> Iterator[str]:
    """Cut `action` at each of its steps in turn; after each cut, give a word about where it was.

    restore: makes the state before `action`, in an empty folder; called before each cut.
    """
    number = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        restore()
        before = _snapshot(folder)
        run = _Run(os.path.abspath(folder), number)
        with _watching(run), contextlib.suppress(Cut):
            action()
        if not run.dead:
            return
        if power:
            for path in folder.rglob("*"):
                if path.is_file() and path.stat().st_ino not in run.flushed:
                    content = path.read_bytes()
                    if before.get(path.stat().st_ino) != content:
                        path.write_bytes(content[: len(content) // 2])
        yield f"step {number} ({', '.join(run.trail[-2:])} | cut)"
        number += 1
