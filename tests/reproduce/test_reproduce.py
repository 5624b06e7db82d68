"""The runner, with real children, kernels and papermill on notebooks that take a moment."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from tiny_notebooks import FINISH, write_notebook, write_profile

from dqas_lib.reproduce import cli as reproduce
from dqas_lib.reproduce.child import MARK, marked
from dqas_lib.reproduce.runs import Job, alive, execute, write_lease

FIGURE = """\
target = folder / "figures"
target.mkdir()
(target / "plot.png").write_bytes(b"not a picture" + bytes([N]))
(target / "plot.svg").write_text("<svg/>")
(target / "plot.txt").write_text(f'A line through "{N}" & more.')"""


@pytest.fixture(autouse=True)
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures go to a database of the test's own."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def lines(root: Path) -> list[dict]:
    """The manifest: a line a run that was executed."""
    return [json.loads(line) for line in (root / "reports" / "manifest.jsonl").read_text().splitlines()]


def executed(root: Path) -> list[str]:
    return sorted(line["name"] for line in lines(root))


def table(root: Path, run: str, profile: str = "tiny") -> str:
    return (root / "reports" / "tables" / profile / run / "rows.csv").read_text()


def test_grid_is_run_resumed_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    square = tmp_path / "notebooks" / "square.ipynb"
    write_notebook(square, FINISH, FIGURE)
    profile = write_profile(
        tmp_path,
        "{notebook: square, grid: {N: [2, 3]}}",
        "{notebook: square, name: last, parameters: {N: 5}, needs: [square]}",
        head="title: Squares\nabout: Three numbers.\nfull: true\ndevice: cpu",
    )
    command = ["--profile", profile, "--slots", "2"]
    assert reproduce.main([*command, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "0 finished, 3 to run, about 2 min on 2 cores" in told  # 60 s for two side by side, then 60 s for the last
    assert "after square-2, square-3" in told
    assert not (tmp_path / "reports").exists()

    assert reproduce.main(command) == 0
    ended = [line for line in capsys.readouterr().out.splitlines() if " done " in line and "/3" in line]
    assert ["left" in line for line in ended] == [True, True, False]  # no time is left after the last one
    assert executed(tmp_path) == ["last", "square-2", "square-3"]
    assert lines(tmp_path)[-1]["name"] == "last"
    assert [table(tmp_path, run) for run in ("square-2", "square-3", "last")] == [
        "n,square\n2,4\n",
        "n,square\n3,9\n",
        "n,square\n5,25\n",
    ]
    record = json.loads((tmp_path / "reports" / "tiny.json").read_text())
    assert record["full"] is True
    assert [(run["name"], run["values"], run["parameters"]) for run in record["runs"]] == [
        ("square-2", {"n": 2}, {"N": 2}),
        ("square-3", {"n": 3}, {"N": 3}),
        ("last", {"n": 5}, {"N": 5}),
    ]
    readme = (tmp_path / "reports" / "README.md").read_text()
    assert "| [tiny](#profile-tiny) | full, as published | 3 of 3 |" in readme
    assert "a **full** run with the published settings. Three numbers." in readme
    assert "| 5 | 25 |" in readme
    assert 'alt="A line through &quot;5&quot; &amp; more."' in readme
    figure = tmp_path / "reports" / "figures" / "tiny" / "last" / "plot.png"
    assert figure.read_bytes() == b"not a picture\x05"
    assert record["runs"][2]["files"]["figures/tiny/last/plot.png"]

    # again: nothing runs, nothing changes
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "reports").rglob("*") if path.is_file()}
    assert reproduce.main(command) == 0
    assert "0 runs done" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "reports").rglob("*") if path.is_file()}
    del before[tmp_path / "reports" / ".lock"], after[tmp_path / "reports" / ".lock"]
    assert after == before

    # new prose shows, without a run; a figure that was edited by hand is put right
    write_notebook(square, FINISH, FIGURE, prose="Now in other words.")
    figure.write_bytes(b"edited")
    assert reproduce.main(command) == 0
    assert len(lines(tmp_path)) == 3
    assert figure.read_bytes() == b"not a picture\x05"
    published = json.loads((tmp_path / "reports" / "notebooks" / "tiny" / "last.ipynb").read_text())
    assert "".join(published["cells"][0]["source"]) == "Now in other words."
    assert [cell["metadata"].get("tags") for cell in published["cells"][1:3]] == [
        ["parameters"],
        ["injected-parameters"],
    ]
    assert all(cell["execution_count"] for cell in published["cells"] if cell["cell_type"] == "code")
    assert str(tmp_path) not in json.dumps(published)
    assert NotebookNotary().check_signature(nbformat.from_dict(published))
    published["cells"][0]["source"] = "Words of somebody else."
    assert not NotebookNotary().check_signature(nbformat.from_dict(published))

    # new code runs again; so does what needs it; --set changes the parameters and makes it a reduced run
    write_notebook(square, FINISH, FIGURE, "N + 1")
    capsys.readouterr()
    assert reproduce.main([*command, "--dry-run"]) == 0
    assert "0 finished, 3 to run" in capsys.readouterr().out
    assert reproduce.main([*command, "--only-failed", "--dry-run"]) == 0
    assert "0 finished, 0 to run" in capsys.readouterr().out  # nothing failed
    assert reproduce.main([*command, "--set", "N=7", "--only-failed"]) == 0
    assert len(lines(tmp_path)) == 3
    readme = (tmp_path / "reports" / "README.md").read_text()
    assert "| reduced | 0 of 3 |" in readme
    assert "(of an earlier version of notebook or library)" in readme


def test_a_published_notebook_does_not_tell_where_packages_lie(tmp_path: Path) -> None:
    lines = ["/home/a b/.venv/lib/site-packages/torch/nn.py:7: UserWarning: slow", r"C:\v\site-packages\x.py: so"]
    square = tmp_path / "notebooks" / "square.ipynb"
    write_notebook(square, FINISH, f"print({chr(10).join(lines)!r})")
    profile = write_profile(tmp_path, "{notebook: square}")
    assert reproduce.main(["--profile", profile]) == 0
    published = nbformat.read(tmp_path / "reports" / "notebooks" / "tiny" / "square.ipynb", as_version=4)
    (text,) = [output.text for cell in published.cells for output in cell.get("outputs", []) if "slow" in str(output)]
    assert text == "torch/nn.py:7: UserWarning: slow\nx.py: so\n"


def test_failures_are_told_and_repeated(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "notebooks"
    write_notebook(folder / "divides.ipynb", "1 / (N - 1)", FINISH)
    write_notebook(folder / "leaves.ipynb", "import sys; sys.exit(0)", FINISH)
    write_notebook(folder / "forgets.ipynb", "N")
    write_notebook(folder / "dies.ipynb", FINISH, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    profile = write_profile(
        tmp_path,
        "{notebook: divides}",
        "{notebook: leaves}",
        "{notebook: forgets}",
        "{notebook: dies}",
        "{notebook: divides, name: after, needs: [divides], parameters: {N: 4}}",
    )
    assert reproduce.main(["--profile", profile]) == 1
    told = capsys.readouterr().out
    assert "failed divides: ZeroDivisionError: division by zero (cell 3)" in told
    assert "failed leaves: 1 of its 3 code cells were not executed" in told
    assert "failed forgets: it wrote no result.json: the last cell of a notebook calls tables.finish(...)" in told
    assert "failed dies: DeadKernelError: Kernel died" in told
    assert "not run after: it needs divides" in told
    assert f"repeat with: python -m dqas_lib.reproduce --profile {profile} --only-failed" in told
    assert "0 runs done" in told
    failed = next(line for line in lines(tmp_path) if line["name"] == "divides")
    kept = tmp_path / "reports" / ".failed" / failed["run"] / "notebook.ipynb"
    assert "ZeroDivisionError" in kept.read_text()
    assert list((tmp_path / "reports" / ".attempts").iterdir()) == []

    write_notebook(folder / "divides.ipynb", "1 / N", FINISH)
    assert reproduce.main(["--profile", profile, "--only-failed", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "0 finished, 5 to run" in told  # what failed last time, and what waits for it
    profile = write_profile(tmp_path, "{notebook: divides}", "{notebook: divides, name: after, parameters: {N: 4}}")
    assert reproduce.main(["--profile", profile, "--only-failed"]) == 0
    assert reproduce.main(["--profile", profile]) == 0
    assert [line["name"] for line in lines(tmp_path) if line["status"] == "done"] == ["divides", "after"]
    # --force runs what is finished, and leaves one result
    profile = write_profile(tmp_path, "{notebook: divides}")
    assert reproduce.main(["--profile", profile, "--force"]) == 0
    assert [line["name"] for line in lines(tmp_path) if line["status"] == "done"] == ["divides", "after", "divides"]
    assert not (tmp_path / "reports" / "tables" / "tiny" / "after").exists()


def test_environment_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    look = """\
names = ["DQAS_WORKERS", "OMP_NUM_THREADS", "TQDM_DISABLE", "CUDA_VISIBLE_DEVICES", "DQAS_DATA", "IPYTHONDIR"]
seen = {name: os.environ[name] for name in names}
import time; time.sleep(2)
(folder / "result.json").write_text(json.dumps({"finished": True, "values": seen, "versions": {}}))"""
    write_notebook(tmp_path / "notebooks" / "look.ipynb", FINISH, look)
    profile = write_profile(
        tmp_path,
        "{notebook: look}",
        "{notebook: look, name: wide, cores: 2, parameters: {N: 2}}",
        "{notebook: look, name: all, cores: all, parameters: {N: 3}}",
    )
    assert reproduce.main(["--profile", profile, "--slots", "3"]) == 0
    runs = {run["name"]: run for run in json.loads((tmp_path / "reports" / "tiny.json").read_text())["runs"]}
    assert {name: run["values"]["DQAS_WORKERS"] for name, run in runs.items()} == {"look": "1", "wide": "2", "all": "3"}
    values = runs["wide"]["values"]
    assert values["OMP_NUM_THREADS"] == values["TQDM_DISABLE"] == "1"
    assert values["CUDA_VISIBLE_DEVICES"] == ""
    assert values["DQAS_DATA"] == str(tmp_path / "data")
    assert values["IPYTHONDIR"].startswith(str(tmp_path / "reports" / ".attempts"))
    assert runs["wide"]["peak_memory_mb"] > 20

    # the same notebooks on two GPUs: each run sees one of them, and both are used
    write_profile(tmp_path, "{notebook: look, grid: {N: [1, 2, 3]}}", name="gpus", head="device: cuda")
    profile = str(tmp_path / "notebooks" / "profiles" / "gpus.yaml")
    assert reproduce.main(["--profile", profile]) == 0
    runs = json.loads((tmp_path / "reports" / "gpus.json").read_text())["runs"]
    assert {run["values"]["CUDA_VISIBLE_DEVICES"] for run in runs} == {"2", "5"}
    assert {run["device"] for run in runs} == {"cuda"}


def test_gpu_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert reproduce.gpu_slots(["0", "1"], None, 3).free == ["0", "1", "0", "1", "0", "1"]
    assert reproduce.gpu_slots(["0", "1", "2"], 4, 1).free == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-12ab, 3")
    assert reproduce.visible_gpus() == ["GPU-12ab", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = write_profile(tmp_path, "{notebook: good}", head="device: cuda\nper_gpu: 2")
    assert reproduce.main(["--profile", profile, "--dry-run"]) == 0
    assert "1 to run, about 60 s on 2 places on GPUs" in capsys.readouterr().out
    assert reproduce.main(["--profile", profile]) == 2
    assert "runs on CUDA, but no CUDA device is visible here: give --device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quick", "digits", "cifar10-cpu", "cifar10", "cifar100", "tiny-imagenet", "paper"])
def test_the_kits_profiles_fit_its_notebooks(name: str, capsys: pytest.CaptureFixture) -> None:
    assert reproduce.main(["--profile", name, "--dry-run"]) == 0
    told = capsys.readouterr().out
    on_a_cpu = ("quick", "digits", "cifar10-cpu")
    assert told.startswith(f"profile {name} on {'cpu' if name in on_a_cpu else 'cuda'}: ")
    assert ("06_train_and_evaluate" if name in on_a_cpu else "08_comparison") in told


def grid_of(tmp_path: Path, *runs: str, head: str = "device: cpu") -> reproduce.Grid:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = reproduce.load_profile(write_profile(tmp_path, *runs, head=head))
    return reproduce.plan(profile, tmp_path / "reports", [], only_failed=False, force=False)


def test_time_left_plays_the_grid_through(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path,
        "{notebook: good, name: a, minutes: 1}",
        "{notebook: good, name: b, minutes: 3}",
        "{notebook: good, name: wide, minutes: 2, cores: 2}",
        "{notebook: good, name: last, minutes: 1, needs: [a, b]}",
    )
    two, one = reproduce.cpu_slots(2), reproduce.cpu_slots(1)
    assert [run.name for run in reproduce.in_order(grid.todo, grid, two)] == ["wide", "a", "b", "last"]
    assert reproduce.time_left(grid, two, {}) == 60 * (2 + 3 + 1)
    assert reproduce.time_left(grid, one, {}) == 60 * (2 + 1 + 3 + 1)
    assert reproduce.time_left(grid, two, {"wide": 90.0}) == 60 * (0.5 + 3 + 1)
    assert reproduce.time_left(grid, two, {"wide": 500.0}) == 1 + 60 * (3 + 1)  # late: it may end at any moment
    grid.records["wide"] = {"status": "done"}
    assert reproduce.time_left(grid, two, {"a": 0.0, "b": 30.0}) == 60 * (2.5 + 1)
    grid.records |= {"a": {"status": "failed"}, "b": {"status": "done"}}
    assert reproduce.time_left(grid, two, {}) == 0  # the last one cannot run any more


def test_estimates_come_from_the_last_time(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, "{notebook: good, minutes: 2}", "{notebook: good, name: new, minutes: 4}")
    history = [
        {"profile": "tiny", "name": "good", "status": "done", "seconds": 9.0},
        {"profile": "tiny", "name": "good", "status": "done", "seconds": 7.5},
        {"profile": "tiny", "name": "good", "status": "failed", "seconds": 1.0},
        {"profile": "other", "name": "new", "status": "done", "seconds": 3.0},
    ]
    assert reproduce.estimates(grid.profile, history) == {"good": 7.5, "new": 240}


BAD_PROFILES = [
    ("{notebook: good, parameters: {SEEDS: [0]}}", "notebook good has no parameter SEEDS: it has N, NAMES"),
    ("{notebook: good, parameters: {N: [1]}}", "parameter N is a number, like 1; got [1], a list"),
    ("{notebook: good, parameters: {NAMES: dqas}}", "parameter NAMES is a list, like ['dqas']; got 'dqas', a text"),
    ("{notebook: god}", "no notebook 'god' in"),
    ("{notebook: good, kores: 2}", "run 1 has an unknown key 'kores': the known ones are notebook, name, cores"),
    ("{notebook: good, cores: 0}", "cores of good must be a whole number >= 1 or 'all'; got 0"),
    ("{notebook: good, needs: [later]}", "good needs 'later', which no earlier run is called: there are none"),
    ("{notebook: good, grid: {N: 3}}", "grid of good: N needs a list of values; got 3"),
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
    assert reproduce.main(["--profile", write_profile(tmp_path, run)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "RATIO=0.1"], "no notebook of profile tiny has a parameter RATIO: the known ones are N"),
        (["--set", "N=many"], "parameter N is a number, like 1; got 'many', a text"),
        (["--set", "N"], "--set takes NAME=VALUE"),
        (["--set", "N=[1"], "'[1' is no YAML value"),
        (["--slots", "0"], "--slots must be at least 1; got 0"),
        (["--profile", "quikc"], "unknown profile 'quikc': the known ones are "),
        (["--profile", "none.yaml"], "no profile file none.yaml"),
        (["--reports", "/proc/reports"], "cannot write to /proc/reports"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
    ],
)
def test_bad_command_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    if "--scheduler" in options:
        pytest.importorskip("distributed")
        monkeypatch.setattr(reproduce, "CONNECT_TIMEOUT", "1s")
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    assert reproduce.main(["--profile", write_profile(tmp_path, "{notebook: good}"), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "reports" / ".runs").glob("*"))


def test_second_start_on_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = write_profile(tmp_path, "{notebook: good}")
    (tmp_path / "reports").mkdir()
    with open(tmp_path / "reports" / ".lock", "w") as file:
        file.write("process 1 on another")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert reproduce.main(["--profile", profile]) == 2
    error = capsys.readouterr().err
    assert "another reproduction (process 1 on another) works in" in error
    assert "--reports DIR" in error
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [".lock"]


@pytest.mark.parametrize(
    ("sent", "interrupts"),
    [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_IGN),  # in the background, where a shell's children ignore interrupts
    ],
)
def test_interrupt_ends_the_children(tmp_path: Path, sent: int, interrupts: object) -> None:
    write_notebook(tmp_path / "notebooks" / "slow.ipynb", "import time; time.sleep(N)", FINISH, parameters="N = 600")
    profile = write_profile(tmp_path, "{notebook: slow}", "{notebook: slow, name: other, parameters: {N: 601}}")
    launcher = [
        sys.executable,
        str(Path(__file__).parent / "faults" / "launch.py"),
        "--profile",
        profile,
        "--slots",
        "2",
    ]
    process = subprocess.Popen(
        launcher,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupts),
    )
    attempts = str(tmp_path / "reports" / ".attempts")
    try:
        deadline = time.monotonic() + 60
        while len(_kernels(attempts)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sent)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert output.endswith("stopped\n")
    assert "Traceback" not in output
    assert marked(lambda values: values[MARK].startswith(attempts)) == []
    assert list(Path(attempts).iterdir()) == []
    assert not (tmp_path / "reports" / ".runs").exists()


def _kernels(attempts: str) -> list:
    found = marked(lambda values: values[MARK].startswith(attempts))
    return [process for process in found if any("ipykernel_launcher" in word for word in process.cmdline())]


def test_torn_manifest_is_mended(tmp_path: Path) -> None:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    command = ["--profile", write_profile(tmp_path, "{notebook: good}")]
    assert reproduce.main(command) == 0
    manifest = tmp_path / "reports" / "manifest.jsonl"
    whole = manifest.read_text()
    manifest.write_text(whole[: len(whole) // 2])
    assert reproduce.main(command) == 0
    torn, mended, end = manifest.read_text().split("\n")
    assert (torn, mended + "\n", end) == (whole[: len(whole) // 2], whole, "")
    assert [line["name"] for line in reproduce.read_manifest(tmp_path / "reports")] == ["good"]


def job(tmp_path: Path, **changes) -> Job:
    notebook = tmp_path / "notebooks" / "good.ipynb"
    write_notebook(notebook, FINISH)
    library = Path(reproduce.__file__).parent.parent
    session = tmp_path / "session"
    session.touch()
    values = {
        **{"run": "0123", "name": "good", "profile": "tiny", "notebook": "good", "content": notebook.read_text()},
        **{"parameters": {}, "device": "cpu", "gpu": "", "workers": 1, "reports": tmp_path / "reports"},
        **{"library": library, "data": tmp_path, "folder": notebook.parent, "session": session, "code": {}},
    }
    return Job(**{**values, **changes})


def test_a_run_that_somebody_works_at_is_waited_for(tmp_path: Path) -> None:
    """A cluster may start a run again while its first attempt still works."""
    first = job(tmp_path)
    attempt = tmp_path / "reports" / ".attempts" / "0123-elsewhere-1-0"
    attempt.mkdir(parents=True)
    write_lease(attempt)
    lease = attempt / "lease.json"
    lease.write_text(lease.read_text().replace('"host": "', '"host": "elsewhere-'))
    assert alive(attempt)
    os.utime(lease, (time.time() - 60, time.time() - 60))
    assert not alive(attempt)  # not renewed for a minute: its holder is lost
    assert execute(first)["status"] == "done"
    begun = time.monotonic()
    assert execute(first)["status"] == "done"  # done already: nothing is started
    assert time.monotonic() - begun < 0.5
    first.session.unlink()
    assert execute(job(tmp_path, run="4567", session=tmp_path / "gone"))["status"] == "stopped"


def test_notebook_with_the_librarys_own_finish(tmp_path: Path) -> None:
    """plots.show, tables.save and tables.finish as the real notebooks call them."""
    code = """\
import pandas as pd
from matplotlib import pyplot as plt
from dqas_lib import plots, tables
figure, axis = plt.subplots()
axis.plot([1, 2], [1, N])
plots.show(figure, "line", "A line.")
tables.save(pd.DataFrame({"n": [N]}), "numbers")
tables.finish({"n": N})"""
    write_notebook(tmp_path / "notebooks" / "real.ipynb", code)
    assert reproduce.main(["--profile", write_profile(tmp_path, "{notebook: real, parameters: {N: 3}}")]) == 0
    run = json.loads((tmp_path / "reports" / "tiny.json").read_text())["runs"][0]
    assert run["values"] == {"n": 3}
    assert sorted(run["files"]) == [
        "figures/tiny/real/line.png",
        "figures/tiny/real/line.svg",
        "figures/tiny/real/line.txt",
        "notebooks/tiny/real.ipynb",
        "tables/tiny/real/numbers.csv",
    ]
    assert {"torch", "numpy", "papermill", "python"} <= set(run["versions"])
    published = (tmp_path / "reports" / "notebooks" / "tiny" / "real.ipynb").read_text()
    assert 'alt=\\"A line.\\"' in published
    shutil.rmtree(tmp_path / "reports" / ".runs")
