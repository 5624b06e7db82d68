"""One's own results against published ones: what is equal, within, outside, missing or damaged. Nothing is executed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_notebooks import FINISH, write_finished, write_notebook, write_profile

from dqas_lib.reproduce.cli import main
from dqas_lib.reproduce.folder import place_of
from dqas_lib.reproduce.profiles import load_profile
from dqas_lib.reproduce.verify import Verdict, verify

TABLES = {
    "trainings.csv": "method,seed,class,accuracy,training_seconds\n"
    + "".join(f"{method},{seed},7,0.9{seed}5,1.5\n" for method in ("dqas", "random") for seed in (0, 1, 2)),
    "means.csv": "ratio,dqas,full\n0.1,91.0 ± 0.9,\n0.2,93.8 ± 1.0,98.6\n",
    "paired.csv": "first,second,difference,half,p\ndqas,dq,0.025,0.012,0.001\n",
    "texts.csv": "file,reason\na.png,cannot be read\n",
}


class Project:
    """A run that is finished and published, both written by hand."""

    def __init__(self, root: Path) -> None:
        write_notebook(root / "notebooks" / "square.ipynb", FINISH)
        self.path = write_profile(root, "{notebook: square}")
        self.profile = load_profile(self.path)
        self.reports, self.own = root / "reports", root / "reports" / "own"
        (run,) = self.profile.runs
        write_finished(self.own, run, values={"pairs": [{"difference": 0.5, "half": 0.1}], "name": "digits"})
        self.tables = place_of(self.own, run) / "tables"
        self.tables.mkdir()
        for name, content in TABLES.items():
            (self.tables / name).write_text(content)
        self.ids = self.tables.with_name("ids")
        self.ids.mkdir()
        np.save(self.ids / "digits-dqas.npy", np.array([3, 5, 8]))
        assert main(["--profile", self.path, "--publish"]) == 0

    def verdict(self) -> Verdict:
        return verify(self.profile, self.own, self.reports)

    def edit(self, name: str, before: str, after: str) -> None:
        """Change a published table, as if it had been published so."""
        path = self.reports / "tables" / "tiny" / "square" / name
        content = path.read_text()
        assert before in content
        path.write_text(content.replace(before, after, 1))
        record = self.reports / "tiny.json"
        old, new = (hashlib.sha256(text.encode()).hexdigest() for text in (content, path.read_text()))
        record.write_text(record.read_text().replace(old, new))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Project:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    project = Project(tmp_path)
    capsys.readouterr()
    return project


def test_all_as_published(project: Project, capsys: pytest.CaptureFixture) -> None:
    assert main(["--profile", project.path, "--strict"]) == 0
    output = capsys.readouterr().out
    # two reported; 6 x (seed, class, accuracy); 5 of the means; 3 of the pair; a selection
    assert "tiny: 29 of 29 values as published\nopen next:\n" in output
    assert project.verdict().measured[1] == ("square/trainings.csv", "training_seconds", 9.0, 9.0)
    page = (project.own / "tiny-and-published.html").read_text()
    assert "29 of 29 values as published" in page
    assert "training_seconds" in page


CHANGES = [
    ("trainings.csv", "random,1,7,0.915", "random,1,7,0.925", "method random, seed 1: accuracy is 0.915 (-0.01)", True),
    ("trainings.csv", "random,1,7,", "random,1,6,", "seed 1, class 6: class is 7 (+1), published 6", False),
    ("trainings.csv", "random,1", "bandom,1", "method bandom, seed 1: method is random, published bandom", False),
    ("means.csv", "91.0 ± 0.9", "91.5 ± 0.9", "ratio 0.1: dqas is 91.0 ± 0.9 (-0.5), published 91.5 ± 0.9", True),
    ("means.csv", "91.0 ± 0.9", "95.0 ± 0.9", "ratio 0.1: dqas is 91.0 ± 0.9 (-4), published 95.0 ± 0.9", False),
    ("means.csv", "98.6", "98.7", "ratio 0.2: full is 98.6 (-0.1), published 98.7", False),
    ("paired.csv", "0.025,0.012,0.001", "0.025,0.013,0.001", "row 1: half is 0.012 (-0.001), published 0.013", True),
    ("paired.csv", "0.025,0.012,0.001", "0.015,0.012,0.001", "row 1: difference is 0.025 (+0.01)", True),
    ("paired.csv", "0.025,0.012,0.001", "0.005,0.012,0.001", "row 1: difference is 0.025 (+0.02)", False),
    ("texts.csv", "a.png", "b.png", "texts.csv, row 1: file is a.png, published b.png", False),
]


@pytest.mark.parametrize(("name", "before", "after", "sentence", "within"), CHANGES)
def test_a_changed_value_is_named(
    project: Project, capsys: pytest.CaptureFixture, name: str, before: str, after: str, sentence: str, within: bool
) -> None:
    project.edit(name, before, after)
    assert main(["--profile", project.path, "--strict"]) == (0 if within else 3)
    output = capsys.readouterr().out
    assert "1 within the interval, 0 outside" in output or not within
    assert sentence in output
    assert ("within the published interval" if within else ": outside") in output
    assert "likely cause: machine, device and versions are as published, so the code or" in output
    assert "was changed since" not in output


def test_a_seed_is_judged_by_the_published_seeds_of_its_setting(project: Project) -> None:
    table = project.tables / "trainings.csv"
    for accuracy, within in (("0.935", True), ("0.937", False), ("0.115", False)):  # 0.915 and two times 0.01 around it
        table.write_text(TABLES["trainings.csv"].replace("random,1,7,0.915", f"random,1,7,{accuracy}"))
        (difference,) = project.verdict().differences
        assert (difference.own, difference.published, difference.within) == (accuracy, "0.915", within)


def test_a_changed_id_is_named_and_so_is_a_changed_file(project: Project, capsys: pytest.CaptureFixture) -> None:
    ids = project.reports / "ids" / "tiny" / "square" / "digits-dqas.npy"
    listed = (project.reports / "ids" / "SHA256SUMS").read_text()
    assert listed == f"{hashlib.sha256(ids.read_bytes()).hexdigest()}  tiny/square/digits-dqas.npy\n"
    np.save(ids, np.array([3, 6, 8]))
    assert main(["--profile", project.path, "--strict"]) == 3
    output = capsys.readouterr().out
    assert "square/digits-dqas.npy, 1 of 3 ids, first in row 2: id is 5, published 6: outside" in output
    assert f"{ids} was changed since it was published: restore it with git checkout" in output


def test_another_machine_and_versions_are_the_likely_cause(project: Project) -> None:
    project.edit("means.csv", "98.6", "98.7")
    path = project.reports / "tiny.json"
    record = json.loads(path.read_text())
    record["runs"][0] |= {"machine": "4 aarch64 cores", "versions": {"torch": "2.9"}}
    path.write_text(json.dumps(record))
    cause = "machine by hand here, 4 aarch64 cores published; torch none here, 2.9 published"
    assert project.verdict().cause == cause


def test_what_cannot_be_compared_is_one_sentence(project: Project, capsys: pytest.CaptureFixture) -> None:
    folder = project.reports / "tables" / "tiny" / "square"
    (folder / "means.csv").unlink()
    (folder / "texts.csv").write_bytes(b"\xff\xfe\x00")
    (ids := project.reports / "ids" / "tiny" / "square" / "digits-dqas.npy").write_bytes(b"no array")
    project.edit("paired.csv", "first", "third")
    (project.tables / "trainings.csv").write_text(TABLES["trainings.csv"].rsplit("\n", 2)[0])
    assert main(["--profile", project.path, "--strict"]) == 3
    output = capsys.readouterr().out
    assert f"the published table {folder / 'means.csv'} is missing: restore it with git checkout\n" in output
    assert f"the published table {folder / 'texts.csv'} is damaged (" in output
    assert f"the published table {ids} is damaged (" in output
    assert "square/paired.csv has 1 rows of first, second" in output
    assert "square/trainings.csv has 5 rows of method" in output
    assert len(project.verdict().problems) == 5
    (project.tables / "paired.csv").unlink()
    (project.tables / "trainings.csv").write_bytes(b"")
    problems = project.verdict().problems
    for name in ("paired.csv", "trainings.csv"):
        assert f"{project.tables / name} is missing or damaged, so it was not compared: run it again with" in str(
            problems
        )


def test_records_that_are_missing_or_damaged(project: Project, capsys: pytest.CaptureFixture) -> None:
    path = project.reports / "tiny.json"
    record = json.loads(path.read_text())
    for damage in ("", "{", "[]", '{"runs": 3}', json.dumps({**record, "runs": [{"files": {"../x": ""}}]})):
        path.write_text(damage)
        assert main(["--profile", project.path]) == 0
        assert f"{path} is damaged: restore it with git checkout" in capsys.readouterr().out
        assert main(["--profile", project.path, "--strict"]) == 3
        assert main(["--profile", project.path, "--publish"]) == 2
        assert "nothing was published: " in capsys.readouterr().err
        assert path.read_text() == damage
    path.unlink()
    assert main(["--profile", project.path]) == 0
    assert f"no results of tiny are published in {project.reports}" in capsys.readouterr().out
    record["runs"][0]["parameters"] = {"N": 7}
    path.write_text(json.dumps(record))
    assert "run square has other parameters than the published one: not compared" in project.verdict().problems
    record["runs"][0] |= {"parameters": {}, "name": "renamed"}
    path.write_text(json.dumps(record))
    assert "run renamed is not finished: not compared" in project.verdict().problems
    assert project.verdict().new == ["square"]
    assert project.verdict().sentence.endswith("; nothing to compare with is published of square")


def test_the_notebook_to_open_is_one_that_ran(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_notebook(tmp_path / "notebooks" / "square.ipynb", FINISH, parameters="N = 1")
    path = write_profile(
        tmp_path, "{notebook: square, name: one}\n  - {notebook: square, name: two, parameters: {N: 2}}"
    )
    runs = load_profile(path).runs
    write_finished(tmp_path / "reports" / "own", runs[1])
    assert main(["--profile", path, "--run", "two"]) == 0
    output = capsys.readouterr().out
    executed = place_of(tmp_path / "reports" / "own", runs[1]) / "notebook.ipynb"
    assert f"{executed} (a notebook as it was executed)" in output
    assert output.count("a notebook as it was executed") == 1
