"""A grid of runs: order, slots, time left. Nothing is executed here."""

import json
import platform
import re
import runpy
import time
from pathlib import Path

import pytest
from tiny_notebooks import FINISH, write_notebook, write_profile

from dqas_lib.core.errors import InputError
from dqas_lib.reproduce import scheduler
from dqas_lib.reproduce.cli import main
from dqas_lib.reproduce.grid import Grid, Slots, choose_slots, in_order, plan, time_left, visible_gpus
from dqas_lib.reproduce.profiles import load_profile
from dqas_lib.reproduce.runs import Job, machine


def test_gpu_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = write_profile(tmp_path, "{notebook: good}", head="device: cuda\nper_gpu: 2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12ab, 3")
    assert visible_gpus() == ["GPU-12ab", "3"]
    assert choose_slots(load_profile(profile), None).free == ["GPU-12ab", "3", "GPU-12ab", "3"]
    assert choose_slots(load_profile(profile), 3).free == ["GPU-12ab", "3", "GPU-12ab"]
    assert choose_slots(load_profile(profile), 3, cluster=True) == Slots(3, [None] * 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["--profile", profile, "--dry-run"]) == 0
    assert "1 to run, about 60 s on 2 places on GPUs" in capsys.readouterr().out
    assert main(["--profile", profile]) == 2
    assert "runs on CUDA, but no CUDA device is visible here: give --device cpu" in capsys.readouterr().err


def grid_of(tmp_path: Path, *runs: str, head: str = "device: cpu") -> Grid:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = load_profile(write_profile(tmp_path, *runs, head=head))
    return plan(profile, tmp_path / "own", {}, only_failed=False, force=False)


def test_time_left(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path,
        "{notebook: good, name: a, minutes: 1}",
        "{notebook: good, name: b, minutes: 3}",
        "{notebook: good, name: wide, minutes: 2, cores: 2}",
        "{notebook: good, name: last, minutes: 1, needs: [a, b]}",
    )
    two, one = Slots(2, [""] * 2), Slots(1, [""])
    assert [run.name for run in in_order(grid.todo, grid, two)] == ["wide", "a", "b", "last"]
    assert time_left(grid, two, {}) == 60 * (1 + 3 + 2 * 2 + 1) / 2
    assert time_left(grid, one, {}) == 60 * (1 + 3 + 2 + 1)
    assert time_left(grid, two, {"wide": 90.0}) == 60 * (1 + 3 + 2 * 0.5 + 1) / 2
    grid.records |= {name: {"status": "done"} for name in ("wide", "a")}
    assert time_left(grid, two, {"b": 30.0}) == 60 * 2.5  # the longest one decides
    assert time_left(grid, two, {"b": 500.0}) == 100  # late: a fifth more
    assert time_left(grid, two, {"b": 500.0}, {"b": 90.0}) == 90  # unless its bar knows
    assert time_left(grid, two, {"b": 30.0}, {"b": 900.0}) == 900
    grid.records |= {name: {"status": "failed"} for name in ("b", "last")}
    assert time_left(grid, two, {}) == 0


def test_a_bar_tells_how_far_it_is_and_when_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = tmp_path / ".attempts" / "7-x"
    attempt.mkdir(parents=True)
    monkeypatch.setenv("DQAS_RUN_DIR", str(attempt))
    kernel = runpy.run_path(scheduler.__file__.replace("scheduler", "kernel"))
    (attempt / "cell").write_text("cell 2/3")
    assert scheduler.progress(tmp_path, "7") == ("cell 2/3", None)
    with kernel["Told"](desc="trainings", total=8, disable=True) as bar:
        assert scheduler.progress(tmp_path, "7") == ("cell 2/3, trainings 0/8", None)
        bar.start_t = bar.last_print_t = time.time() - 40  # two took 40 s
        bar.update(2)
        text, end = scheduler.progress(tmp_path, "7")
    assert text == "cell 2/3, trainings 2/8"
    assert end == pytest.approx(time.time() + 120, abs=5)


def test_estimates_come_from_the_last_time(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, *(f"{{notebook: good, name: {name}, minutes: 2}}" for name in ("here", "there", "new")))
    record = {"profile": "tiny", "name": "here", "status": "done"}
    ends = {"a": {"seconds": 9.0, "ended": "2026-01-01"}, "b": {"seconds": 7.5, "ended": "2026-01-02"}}
    ends |= {"c": {"profile": "other", "seconds": 3.0, "ended": "2026-01-03"}, "d": {"ended": 1, "seconds": "x"}}
    for run, end in ends.items():
        (grid.own / "runs" / run).mkdir(parents=True)
        (grid.own / "runs" / run / "run.json").write_text(json.dumps({**record, **end}))
    took = {"here": 100.0, "there": 50.0}  # published
    again = plan(grid.profile, grid.own, took, only_failed=False, force=False)
    assert again.estimates == {"here": 7.5, "there": 50.0, "new": 120}


def test_single_runs_are_chosen_with_what_they_need(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path, "{notebook: good, name: a}", "{notebook: good, name: b}", "{notebook: good, name: c, needs: [a]}"
    )
    chosen = plan(grid.profile, grid.own, {}, only_failed=False, force=False, names=["c"])
    assert [run.name for run in chosen.todo] == ["a", "c"]
    with pytest.raises(InputError, match="unknown run 'd'"):
        plan(grid.profile, grid.own, {}, only_failed=False, force=False, names=["d"])


def test_what_runs_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cores of a CPU; on two GPUs, one of them, and both are used."""
    jobs: dict[str, Job] = {}

    def execute(job: Job) -> dict:
        jobs[job.run.name] = job
        return {"run": job.run.id, "name": job.run.name, "profile": "tiny", "status": "done", "seconds": 0.1}

    monkeypatch.setattr(scheduler, "execute", execute)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    runs = ["{notebook: good}", "{notebook: good, name: wide, cores: 2}", "{notebook: good, name: all, cores: all}"]
    assert main(["--profile", write_profile(tmp_path, *runs), "--slots", "3"]) == 0
    assert {name: (job.workers, job.gpu) for name, job in jobs.items()} == {
        **{"good": (1, ""), "wide": (2, ""), "all": (3, "")}
    }
    jobs.clear()
    runs = ["{notebook: good, grid: {N: [1, 2, 3]}, cores: 4}"]
    assert main(["--profile", write_profile(tmp_path, *runs, head="device: cuda")]) == 0
    assert {job.gpu for job in jobs.values()} == {"2", "5"}
    assert {(job.workers, job.site.device) for job in jobs.values()} == {(4, "cuda")}


def test_a_machine_is_known_by_its_processor() -> None:
    info = Path("/proc/cpuinfo")
    known = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    model = known[0].partition(": ")[2] if known else platform.machine()
    assert re.fullmatch(rf"\d+ {re.escape(model)} cores, \d+ GB", machine("cpu", None))
