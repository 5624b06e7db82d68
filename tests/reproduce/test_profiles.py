"""Profiles and command lines, read and refused; ids of runs. Nothing is executed here."""

from pathlib import Path

import pytest
from tiny_notebooks import FINISH, write_notebook, write_profile

from dqas_lib.core.digests import LIBRARY
from dqas_lib.reproduce import scheduler, source
from dqas_lib.reproduce.cli import main
from dqas_lib.reproduce.profiles import load_profile
from dqas_lib.reproduce.source import library_files

ON_A_CPU = ("quick", "digits", "choices", "bytes", "cifar10-cpu", "cifar100-cpu")


@pytest.mark.parametrize("name", [*ON_A_CPU, "cifar10", "cifar100", "tiny-imagenet", "paper"])
def test_the_kits_profiles_fit_its_notebooks(name: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["--profile", name, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"profile {name} on {'cpu' if name in ON_A_CPU else 'cuda'}: ")
    of_it = {"choices": "12_choices", "bytes": "11_bytes", "cifar10-cpu": "06_plus", "cifar100-cpu": "06_plus"}.get(
        name, "06_train_and_evaluate" if name in ON_A_CPU else "08_comparison"
    )
    assert of_it in output


BAD_PROFILES = [
    ("{notebook: good, parameters: {SEEDS: [0]}}", "notebook good has no parameter SEEDS: it has N, NAMES"),
    ("{notebook: good, parameters: {N: [1]}}", "parameter N is a number, like 1; got [1], a list"),
    ("{notebook: good, parameters: {NAMES: dqas}}", "parameter NAMES is a list, like ['dqas']; got 'dqas', a text"),
    ("{notebook: god}", "no notebook 'god' in"),
    ("{notebook: good, kores: 2}", "run 1 has an unknown key 'kores': the known ones are notebook, name, cores"),
    ("{name: x}", "notebook of x must be the name of a notebook; got nothing"),
    ("{notebook: good, minutes: yes}", "minutes of good must be a number above 0; got True"),
    ("{notebook: good, minutes: .inf}", "minutes of good must be a number above 0; got inf"),
    ("{notebook: good, minutes: }", "minutes of good must be a number above 0; got nothing"),
    ("{notebook: good, parameters: {N: &a [*a]}}", "it uses aliases (*name): write it without them"),
    ("{notebook: good, cores: 0}", "cores of good must be a whole number >= 1 or 'all'; got 0"),
    ("{notebook: good, needs: [later]}", "good needs 'later', which no earlier run is called: there are none"),
    ("{notebook: good, grid: {N: 3}}", "grid of good must be a mapping of names to lists of values; got {'N': 3}"),
    ("{notebook: good}\n  - {notebook: good}", "two runs are called 'good': give one of them a name"),
    ("{notebook: good, name: ../x}", "a run's name is made of letters"),
    ("{notebook: good, parameters: {N: .nan}}", "parameters of good must be plain values"),
    ("good", "run 1 must be a mapping of names to values; got 'good'"),
    ("{notebook: good", "is not readable YAML"),
    ("{notebook: broken}", "is not a Jupyter notebook"),
    ("{notebook: computed}", "the parameters cell holds plain values, one a line"),
]


@pytest.mark.parametrize(("run", "sentence"), BAD_PROFILES)
def test_bad_profiles_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture, run: str, sentence: str) -> None:
    folder = tmp_path / "notebooks"
    write_notebook(folder / "good.ipynb", FINISH, parameters='N = 1\nNAMES = ["dqas"]')
    write_notebook(folder / "computed.ipynb", FINISH, parameters="N = 1 + len([])")
    (folder / "broken.ipynb").write_text("{}")
    assert main(["--profile", write_profile(tmp_path, run)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ("full: 'no'", "full of the profile must be true or false; got 'no'"),
        ("per_gpu: 1.5", "per_gpu of the profile must be a whole number >= 1; got 1.5"),
        ("per_gpu: .inf", "per_gpu of the profile must be a whole number >= 1; got inf"),
        ("device: tpu", "device of the profile must be one of auto, cpu, cuda; got 'tpu'"),
        ("title: 7", "title of the profile must be a text; got 7"),
        ("defaults: [N]", "defaults of the profile must be a mapping of names to values; got ['N']"),
        ("defaults: {M: 1}", "no notebook of profile tiny has a parameter M: the known ones are N"),
        ("ful: true", "the profile has an unknown key 'ful': the known ones are title, about, full, device"),
        ("1: 2", "the profile has an unknown key 1: the known ones are"),
    ],
)
def test_bad_heads(tmp_path: Path, capsys: pytest.CaptureFixture, head: str, sentence: str) -> None:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = write_profile(tmp_path, "{notebook: good}", head=head)
    assert main(["--profile", profile, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"{profile}: {sentence}" in error or ("defaults: {M" in head and sentence in error)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "RATIO=0.1"], "no notebook of profile tiny has a parameter RATIO: the known ones are N"),
        (["--set", "N=many"], "parameter N is a number, like 1; got 'many', a text"),
        (["--set", "N"], "--set takes NAME=VALUE"),
        (["--set", "N=[1"], "'[1' is no YAML value"),
        (["--slots", "0"], "--slots must be at least 1; got 0"),
        (["--profile", "quikc"], "unknown profile 'quikc' (did you mean 'quick'?): the known ones are "),
        (["--profile", "none.yaml"], "no profile file none.yaml"),
        (["--reports", "/proc/reports"], "cannot write to /proc/reports"),
        (["--reports", __file__], "test_profiles.py (File exists): give another folder with --reports DIR"),
        (["--run", "god"], "unknown run 'god' (did you mean 'good'?)"),
        (["--publish", "--set", "N=2"], "--publish is for a checkout and for a profile's own parameters"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
    ],
)
def test_bad_command_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    if "--scheduler" in options:
        pytest.importorskip("distributed")
        monkeypatch.setattr(scheduler, "CONNECT_TIMEOUT", "1s")
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    assert main(["--profile", write_profile(tmp_path, "{notebook: good}"), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "reports" / "own" / "runs").glob("*"))


def reached(*cells: str) -> set[str]:
    return {file.relative_to(LIBRARY).as_posix() for file in library_files(cells)}


def test_the_code_a_notebook_reaches() -> None:
    plots = reached("from dqas_lib.notebook import plots", "plots.show")
    assert {"notebook/plots.py", "notebook/__init__.py", "core/errors.py"} <= plots
    assert not any(name.startswith(("methods/", "training/", "experiments/")) for name in plots)
    methods = {f"methods/{path.name}" for path in (LIBRARY / "methods").glob("*.py")}
    # importing the package runs the file of every method, and so does what the library itself imports
    for cell in ("from dqas_lib.methods import METHODS", "%matplotlib inline\nimport dqas_lib as dqas\n!ls"):
        files = reached("N = 1", cell)
        assert methods | {"core/seeds.py", "training/train.py"} <= files
        assert not any(name.startswith(("reproduce/", "notebook/", "explorers/")) for name in files)
    assert reached("x = 1") == set()
    everything = {path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py")}
    assert reached("%%bash\nfor x in a; do echo $x; done") == {x for x in everything if not x.startswith("reproduce/")}


def test_what_changes_the_id_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = tmp_path / "notebooks" / "good.ipynb"
    write_notebook(good, FINISH)
    profile = write_profile(tmp_path, "{notebook: good}", "{notebook: good, name: last, needs: [good]}")

    def ids(**changes) -> list[str]:
        return [run.id for run in load_profile(profile, **changes).runs]

    first = ids()
    assert len(set(first)) == 2
    write_notebook(good, FINISH, prose="Other words.")
    assert ids() == first
    for other in (ids(settings={"N": 2}), ids(device="cuda")):
        assert not set(other) & set(first)
    monkeypatch.setattr(source, "code_digest", lambda files: "other code of the library")
    assert not set(ids()) & set(first)
    monkeypatch.undo()
    write_notebook(good, FINISH, "1")
    assert not set(ids()) & set(first)
