"""Mutated profiles, parameters, notebooks and manifests of runs, through `load_profile` and the command line."""

import json
from pathlib import Path

import pytest
import yaml
from mutate import VALUES, mutated, mutated_value
from test_fuzz_data import check, seeds

from dqas_lib.reproduce.cli import main
from dqas_lib.reproduce.profiles import Profile, load_profile

PROFILE = {
    "title": "A profile",
    "about": "What it is for.",
    "full": False,
    "device": "cpu",
    "per_gpu": 1,
    "defaults": {"RATIOS": [0.1, 0.2]},
    "runs": [
        {"notebook": "one", "cores": 2, "minutes": 0.5, "parameters": {"SEED": 3}},
        {"notebook": "two", "name": "grid", "grid": {"SEED": [0, 1], "NAME": ["a", "b"]}, "needs": ["one"]},
    ],
}
NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "metadata": {"tags": ["parameters"]},
            "source": ["SEED = 0  # of every draw\n", "RATIOS = [0.1]\n", 'NAME = "digits"\n', "DEVICE = None\n"],
            "outputs": [],
            "execution_count": None,
            "id": "a",
        },
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title"], "id": "b"},
        {"cell_type": "code", "metadata": {}, "source": "1 + 1", "outputs": [], "execution_count": None, "id": "c"},
    ],
    "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture
def kit(tmp_path) -> Path:
    """A folder with notebooks/one.ipynb, two.ipynb and profiles/mine.yaml; gives the profile's path."""
    profile = tmp_path / "kit" / "notebooks" / "profiles" / "mine.yaml"
    profile.parent.mkdir(parents=True)
    profile.write_text(yaml.safe_dump(PROFILE, sort_keys=False))
    for name in ("one", "two"):
        (profile.parent.parent / f"{name}.ipynb").write_text(json.dumps(NOTEBOOK))
    return profile


def load(profile: Path, what: str) -> bool:
    loaded = check(lambda: load_profile(str(profile)), what)
    if loaded is None:
        return False
    assert isinstance(loaded, Profile), what
    names = [run.name for run in loaded.runs]
    assert len(set(names)) == len(names) > 0, what
    for run in loaded.runs:
        assert run.id.isalnum(), what
        assert set(run.parameters) <= set(run.notebook.parameters), what
        json.dumps(dict(run.parameters), allow_nan=False)
    return True


def test_the_unmutated_profile_is_read(kit):
    assert load(kit, "unmutated")
    assert [run.name for run in load_profile(str(kit)).runs] == ["one", "grid-0-a", "grid-0-b", "grid-1-a", "grid-1-b"]


@pytest.mark.filterwarnings("error")
def test_mutated_yaml(kit):
    """Bytes of the file changed."""
    content = kit.read_bytes()
    read = 0
    for seed in seeds("yaml", 200):
        kit.write_bytes(mutated(content, seed))
        read += load(kit, f"yaml, seed {seed}")
    assert read > 5


@pytest.mark.filterwarnings("error")
def test_mutated_profiles(kit):
    """YAML that is whole and says something odd."""
    read = 0
    for seed in seeds("profile", 300):
        kit.write_text(yaml.safe_dump(mutated_value(PROFILE, seed), allow_unicode=False))
        read += load(kit, f"profile, seed {seed}")
    assert read > 5


def laughs(key: str) -> str:
    """A few lines that stand for 9 ** 12 values."""
    lines = ["about: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [
        f"k{number}: &k{number} [{','.join([f'*k{number - 1}' if number else '*a'] * 9)}]" for number in range(11)
    ]
    return "\n".join([*lines, f"{key}: *k10"])


def test_yaml_cannot_make_objects_nor_grow_without_end(kit, tmp_path):
    for text in (
        f"!!python/object/apply:os.system ['touch {tmp_path}/evil']",
        f"runs: !!python/object/new:os.system ['touch {tmp_path}/evil']",
        laughs("runs"),
        laughs("title"),
        "runs: [{notebook: one, parameters: {RATIOS: &a [1, *a]}}]",
        "runs: [{notebook: one, grid: {SEED: " + str([*range(400)]) + ", NAME: " + str(["a"] * 400) + "}}]",
        "[" * 20_000,
        "a: &a [*a]\nruns: *a",
        "",
        "runs: [{notebook: one, parameters: {SEED: 2001-13-13}}]",
        "runs: [{notebook: ../../../etc/passwd}]",
        "runs: [{notebook: 'one\0'}]",
    ):
        kit.write_text(text)
        assert not load(kit, text[:60])
    assert not (tmp_path / "evil").exists()


@pytest.mark.filterwarnings("error")
def test_mutated_notebooks(kit):
    file = kit.parent.parent / "one.ipynb"
    read = 0
    for seed in seeds("notebook", 200):
        if seed % 2:
            file.write_text(json.dumps(mutated_value(NOTEBOOK, seed)))
        else:
            file.write_bytes(mutated(json.dumps(NOTEBOOK).encode(), seed))
        read += load(kit, f"notebook, seed {seed}")
    assert read > 10


def test_values_given_at_the_command_line(kit, tmp_path, capsys):
    """--set with every odd name and value: exit status 0 or 2, one line of error, nothing written."""
    before = sorted(path for path in tmp_path.rglob("*"))
    settings = [f"SEED={value!r}" for value in VALUES] + [f"{value}=1" for value in VALUES[:24]]
    settings += [
        "SEED",
        "=",
        "SEED=",
        "SEED=1=2",
        "RATIOS=[0.1,",
        "RATIOS=[" + "[" * 3000,
        "NAME=\0",
        "NAME=" + "x" * 9999,
    ]
    for setting in settings:
        command = ["--profile", str(kit), "--set", setting, "--dry-run", "--reports", str(tmp_path / "reports")]
        try:
            status = main(command)
        except SystemExit as error:  # argparse
            status = error.code
        captured = capsys.readouterr()
        assert status in (0, 2), setting[:50]
        if status:
            assert "Traceback" not in captured.err, setting[:50]
            assert len(captured.err.strip().splitlines()) >= 1, setting[:50]
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_mutated_manifests_of_runs(kit, tmp_path, capsys):
    """Records of earlier runs, damaged: they count as absent, the plan is made all the same."""
    reports = tmp_path / "reports"
    ids = [run.id for run in load_profile(str(kit)).runs]
    lines = [
        json.dumps({"run": id_, "status": "done", "seconds": 1.5, "name": "one", "profile": "mine"}) for id_ in ids
    ]
    for seed in seeds("run manifest", 60):
        record = reports / "runs" / f"one-{ids[0]}" / "run.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_bytes(mutated(lines[0].encode(), seed + 1))
        what = f"run manifest, seed {seed}"
        status = check(lambda: main(["--profile", str(kit), "--dry-run", "--reports", str(reports)]), what)
        assert status == 0, what
    capsys.readouterr()
