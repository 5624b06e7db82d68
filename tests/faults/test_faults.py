"""Faults: processes killed at random checkpoints, full disks, folders that cannot be written to.

After each the next start finishes the grid, its tables are byte-equal to an unbroken run's, no run that had finished is
done again, and no process is left behind.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tiny_notebooks import FINISH, write_finished, write_notebook, write_profile

from dqas_lib.reproduce.child import MARK, marked
from dqas_lib.reproduce.profiles import load_profile

LAUNCH = [sys.executable, "-m", "dqas_lib.reproduce"]
MOMENTS = {"parent": 20, "child": 20, "kernel": 20, "worker": 5}  # how often each is killed
PATIENCE = 240  # seconds for a whole grid on a busy machine
# a kernel that has started processes of its own, as trainings on several cores do
BUSY = """\
import subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
time.sleep(0.3)"""


def project(root: Path, numbers: tuple[int, ...] = (2, 3)) -> list[str]:
    """A grid of a run per number and one that needs them all; gives the command that runs it."""
    write_notebook(root / "notebooks" / "square.ipynb", BUSY, FINISH, "helper.kill()")
    runs = [f"{{notebook: square, grid: {{N: {[*numbers]}}}}}"] * bool(numbers)
    last = f"{{notebook: square, name: last, parameters: {{N: 5}}, needs: {['square'] * bool(numbers)}}}"
    profile = write_profile(root, *runs, last)
    return [*LAUNCH, "--profile", profile, "--slots", "2"]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "JUPYTER_DATA_DIR": str(root / "jupyter"), "OMP_NUM_THREADS": "1"}


def tables(root: Path) -> dict[str, bytes]:
    records = [(path, json.loads(path.read_text())["name"]) for path in (root / "reports/own/runs").glob("*/run.json")]
    return {name: (path.parent / "tables" / "rows.csv").read_bytes() for path, name in records}


def unbroken(numbers: tuple[int, ...]) -> dict[str, bytes]:
    """The tables of a project that nothing came between."""
    squares = {f"square-{n}": b"n,square\n%d,%d\n" % (n, n * n) for n in numbers}
    return {"last": b"n,square\n5,25\n", **squares}


def of_project(root: Path) -> list[psutil.Process]:
    """All processes of the project's runs."""
    return marked(lambda values: values[MARK].startswith(str(root)))


def is_a(process: psutil.Process, victim: str) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return {"child": "child.py", "kernel": "kernel.py", "worker": "time.sleep(1000)"}[victim] in words


def kill_one(root: Path, parent: subprocess.Popen, victim: str) -> bool:
    """kill -9 of one process of the kind; False when the grid ended before there was one."""
    while parent.poll() is None:
        candidates = (
            [parent] if victim == "parent" else [process for process in of_project(root) if is_a(process, victim)]
        )
        for process in candidates[:1]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.02)
    return False


def nobody_left(root: Path) -> bool:
    """Whether all processes of the runs end within some seconds of their own accord."""
    deadline = time.monotonic() + 20
    while of_project(root):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def finished_runs(root: Path, reports: str = "reports/own") -> dict[str, tuple[int, int]]:
    """What identifies the finished runs: a run done again would have another file."""
    status = {path.parent.name: path.stat() for path in (root / reports / "runs").glob("*/run.json")}
    return {run: (info.st_ino, info.st_mtime_ns) for run, info in status.items()}


def breaks_and_goes_on(root: Path, victim: str, numbers: tuple[int, ...], wait: Callable[[], object]) -> None:
    """Start a project's grid, wait, kill a process, start again."""
    command = project(root, numbers)
    parent = subprocess.Popen(command, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait()
        killed = kill_one(root, parent, victim)
        output, _ = parent.communicate(timeout=PATIENCE)
    finally:
        parent.kill()
    assert nobody_left(root), f"{of_project(root)} outlived a killed {victim}"
    assert b"Traceback" not in output, output.decode()
    if victim == "parent" and killed:
        assert parent.returncode == -signal.SIGKILL
    elif victim == "child" and killed:
        assert (parent.returncode, b"was killed by SIGKILL" in output) == (1, True), output.decode()
    else:  # a killed kernel fails its run, if it was not about to end anyway
        assert parent.returncode in (0, 1), output.decode()
    before = finished_runs(root)
    again = subprocess.run(
        command, env=environment(root), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert tables(root) == unbroken(numbers)
    after = finished_runs(root)
    assert len(after) == len(numbers) + 1
    assert {run: after.get(run) for run in before} == before
    assert list((root / "reports" / "own" / ".attempts").iterdir()) == []
    assert nobody_left(root)


def test_kill_9_of_the_parent(tmp_path: Path) -> None:
    """When the first of two runs is done: it stays done."""

    def first_is_done() -> None:
        deadline = time.monotonic() + PATIENCE
        while not finished_runs(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)

    breaks_and_goes_on(tmp_path, "parent", (2,), first_is_done)
    assert len(finished_runs(tmp_path)) == 2


def test_kill_9_of_a_kernel(tmp_path: Path) -> None:
    breaks_and_goes_on(tmp_path, "kernel", (), lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number"),
    [(victim, number) for victim, times in MOMENTS.items() for number in range(times)],
)
def test_kill_9_at_random_moments(tmp_path: Path, victim: str, number: int) -> None:
    moment = random.Random(f"{victim} {number}").uniform(0.2, 11.0)
    print(f"{victim} after {moment:.2f} s")
    breaks_and_goes_on(tmp_path, victim, (2, 3), lambda: time.sleep(moment))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root's rights: this test checked nothing")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, spare: int) -> None:
    """Leave `spare` bytes free."""
    (disk / "hog").write_bytes(b"")
    space = os.statvfs(disk)
    (disk / "hog").write_bytes(b"x" * max(space.f_bavail * space.f_frsize - spare, 0))


def test_full_disk(tmp_path: Path, small_disk: Path) -> None:
    write_notebook(tmp_path / "notebooks" / "square.ipynb", FINISH)
    large = """(folder / "tables" / "large.bin").write_bytes(b"x" * 6_000_000)"""
    write_notebook(tmp_path / "notebooks" / "large.ipynb", FINISH, large)
    profile = write_profile(tmp_path, "{notebook: square}", "{notebook: large, needs: [square]}")
    command = [*LAUNCH, "--profile", profile, "--reports", str(small_disk / "reports")]
    options = {"env": environment(tmp_path), "capture_output": True, "text": True, "timeout": PATIENCE, "check": False}
    for spare in (0, 40_000, 4_000_000):  # no room for the lock, for the library's copy, for the large result
        if spare == 4_000_000:
            (small_disk / "hog").unlink()
            write_finished(small_disk / "reports", load_profile(profile).runs[0])
        fill(small_disk, spare)
        run = subprocess.run(command, **options)
        output = run.stdout + run.stderr
        assert run.returncode in (1, 2), output
        assert "no space is left on the disk" in output
        assert "Traceback" not in output
        assert nobody_left(tmp_path)
    before = finished_runs(small_disk.parent, "disk/reports")
    assert len(before) == 1
    (small_disk / "hog").unlink()
    run = subprocess.run(command, **options)
    assert run.returncode == 0, run.stdout + run.stderr
    after = finished_runs(small_disk.parent, "disk/reports")
    assert len(after) == 2
    assert before.items() <= after.items()
    (large_table,) = (small_disk / "reports" / "runs").glob("large-*/tables/large.bin")
    assert large_table.stat().st_size == 6_000_000


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    command = project(tmp_path)
    reports = tmp_path / "reports" / "own"
    reports.mkdir(mode=0o555, parents=True)
    reason = "Permission denied"
    root = os.geteuid() == 0
    if root:  # root may write to any folder, but not to a disk that is read-only
        reason = "Read-only file system"
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(reports)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting a read-only tmpfs is not possible here: this test checked nothing")
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert list(reports.iterdir()) == []
    finally:
        if root:
            subprocess.run(["umount", "-l", str(reports)], check=True)
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr == f"error: cannot write to {reports} ({reason}): give another folder with --reports DIR\n"


def test_two_starts_at_once(tmp_path: Path) -> None:
    command = project(tmp_path, ())
    options = {"env": environment(tmp_path), "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    starts = [subprocess.Popen(command, **options) for _ in range(2)]
    outputs = [start.communicate(timeout=PATIENCE)[0] for start in starts]
    assert sorted(start.returncode for start in starts) == [0, 2]
    refused = next(output for start, output in zip(starts, outputs, strict=True) if start.returncode == 2)
    assert "another reproduction (process " in refused
    assert refused.count("\n") == 1
    assert tables(tmp_path) == unbroken(())
    assert len(finished_runs(tmp_path)) == 1
