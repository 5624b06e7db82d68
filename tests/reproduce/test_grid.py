"""A grid of runs: order, slots, time left. Nothing is executed here."""

from pathlib import Path

import pytest
from tiny_notebooks import FINISH, write_notebook, write_profile

from dqas_lib.reproduce import scheduler
from dqas_lib.reproduce.cli import main
from dqas_lib.reproduce.grid import Grid, Slots, choose_slots, in_order, plan, time_left, visible_gpus
from dqas_lib.reproduce.profiles import load_profile
from dqas_lib.reproduce.runs import Job


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
    return plan(profile, tmp_path / "reports", [], only_failed=False, force=False)


def test_time_left_plays_the_grid_through(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path,
        "{notebook: good, name: a, minutes: 1}",
        "{notebook: good, name: b, minutes: 3}",
        "{notebook: good, name: wide, minutes: 2, cores: 2}",
        "{notebook: good, name: last, minutes: 1, needs: [a, b]}",
    )
    two, one = Slots(2, [""] * 2), Slots(1, [""])
    assert [run.name for run in in_order(grid.todo, grid, two)] == ["wide", "a", "b", "last"]
    assert time_left(grid, two, {}) == 60 * (2 + 3 + 1)
    assert time_left(grid, one, {}) == 60 * (2 + 1 + 3 + 1)
    assert time_left(grid, two, {"wide": 90.0}) == 60 * (0.5 + 3 + 1)
    assert time_left(grid, two, {"wide": 500.0}) == 1 + 60 * (3 + 1)  # late: it may end at any moment
    grid.records["wide"] = {"status": "done"}
    assert time_left(grid, two, {"a": 0.0, "b": 30.0}) == 60 * (2.5 + 1)
    grid.records |= {"a": {"status": "failed"}, "b": {"status": "done"}}
    assert time_left(grid, two, {}) == 0  # the last one cannot run any more


def test_estimates_come_from_the_last_time(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, "{notebook: good, minutes: 2}", "{notebook: good, name: new, minutes: 4}")
    history = [
        {"profile": "tiny", "name": "good", "status": "done", "seconds": 9.0},
        {"profile": "tiny", "name": "good", "status": "done", "seconds": 7.5},
        {"profile": "tiny", "name": "good", "status": "failed", "seconds": 1.0},
        {"profile": "other", "name": "new", "status": "done", "seconds": 3.0},
    ]
    again = plan(grid.profile, grid.reports, history, only_failed=False, force=False)
    assert (grid.estimates, again.estimates) == ({"good": 120, "new": 240}, {"good": 7.5, "new": 240})


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
