"""The runner, with real children, kernels and papermill on notebooks that take a moment."""

import fcntl
import hashlib
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.sign import NotebookNotary
from places import REPOSITORY
from tiny_notebooks import FINISH, write_finished, write_notebook, write_profile

from dqas_lib.core.digests import LIBRARY
from dqas_lib.reproduce import cli as reproduce
from dqas_lib.reproduce import runs
from dqas_lib.reproduce.child import MARK, marked
from dqas_lib.reproduce.folder import lock_of
from dqas_lib.reproduce.profiles import load_profile
from dqas_lib.reproduce.runs import Job, Site, execute

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
    for name in ("CUDA_VISIBLE_DEVICES", "DQAS_DATA"):  # of whoever runs the tests
        monkeypatch.delenv(name, raising=False)


def records(root: Path, kind: str = "runs") -> list[dict]:
    """The records of the runs that were executed, in the order in which they ended."""
    found = [json.loads(path.read_text()) for path in (root / "reports" / "own" / kind).glob("*/run.json")]
    return sorted(found, key=lambda record: record["ended"])


def executed(root: Path) -> list[str]:
    return sorted(record["name"] for record in records(root))


def outputs(root: Path, run: str) -> Path:
    """The folder of a run's outputs; of those that ran again the last one's."""
    (number,) = {record["run"] for record in records(root)[::-1] if record["name"] == run}
    (place,) = (root / "reports" / "own" / "runs").glob(f"*-{number}")
    return place


def table(root: Path, run: str) -> str:
    return (outputs(root, run) / "tables" / "rows.csv").read_text()


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
    output = capsys.readouterr().out
    assert "0 finished, 3 to run, about 90 s on 2 cores" in output  # three times 60 s over two cores
    assert "after square-2, square-3" in output
    assert not (tmp_path / "reports").exists()

    assert reproduce.main(command) == 0
    ended = [line for line in capsys.readouterr().out.splitlines() if " done " in line and "/3" in line]
    assert ["left" in line for line in ended] == [True, True, False]  # no time is left after the last one
    assert executed(tmp_path) == ["last", "square-2", "square-3"]
    assert records(tmp_path)[-1]["name"] == "last"
    assert [table(tmp_path, run) for run in ("square-2", "square-3", "last")] == [
        "n,square\n2,4\n",
        "n,square\n3,9\n",
        "n,square\n5,25\n",
    ]
    figure = outputs(tmp_path, "last") / "figures" / "plot.png"
    assert figure.read_bytes() == b"not a picture\x05"
    notebook = outputs(tmp_path, "last") / "notebook.ipynb"
    assert NotebookNotary().check_signature(nbformat.read(notebook, as_version=4))

    # again: nothing runs, nothing changes, and what was edited by hand stays
    figure.write_bytes(b"edited")
    own = tmp_path / "reports" / "own"
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    assert reproduce.main(command) == 0
    assert "0 runs done" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    assert {path.name for path in before if after[path] != before[path]} <= {
        ".lock",
        ".holder",
        "tiny-and-published.html",
    }
    assert after.keys() == before.keys()

    # new code runs again; so does what needs it; --set changes the parameters and makes it a reduced run
    write_notebook(square, FINISH, FIGURE, "N + 1")
    capsys.readouterr()
    assert reproduce.main([*command, "--dry-run"]) == 0
    assert "0 finished, 3 to run" in capsys.readouterr().out
    assert reproduce.main([*command, "--only-failed", "--dry-run"]) == 0
    assert "0 finished, 0 to run" in capsys.readouterr().out  # nothing failed
    assert reproduce.main([*command, "--set", "N=7", "--only-failed"]) == 0
    assert len(records(tmp_path)) == 3
    assert figure.read_bytes() == b"edited"


def test_results_are_published_by_an_explicit_step(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    square, reports = tmp_path / "notebooks" / "square.ipynb", tmp_path / "reports"
    write_notebook(square, FINISH, FIGURE)
    head = "title: Squares\nabout: Three numbers.\nfull: true\ndevice: cpu"
    profile = write_profile(tmp_path, "{notebook: square, parameters: {N: 5}}", head=head)
    assert reproduce.main(["--profile", profile]) == 0
    assert [path.name for path in reports.iterdir()] == ["own"]
    links = "[next](two.ipynb), ![picture](../reports/a.png), [page](https://a.example/b.md), `x[0](y)`"
    write_notebook(square, FINISH, FIGURE, prose=links)  # shows, without a run
    assert reproduce.main(["--profile", profile, "--publish"]) == 0
    assert "0 runs done" in capsys.readouterr().out
    record = json.loads((reports / "tiny.json").read_text())
    (run,) = record["runs"]
    assert (record["full"], run["name"], run["values"], run["parameters"]) == (True, "square", {"n": 5}, {"N": 5})
    assert {name: (reports / name).is_file() for name in run["files"]} == dict.fromkeys(run["files"], True)
    assert run["files"]["figures/tiny/square/plot.png"] == hashlib.sha256(b"not a picture\x05").hexdigest()
    readme = (reports / "README.md").read_text()
    assert "| [tiny](#profile-tiny) | `dqas-reproduce --profile tiny` | full, as published | 1 |" in readme
    assert "a **full** run with the published settings. Three numbers." in readme
    assert "| 5 | 25 |" in readme
    assert 'alt="A line through &#34;5&#34; &amp; more."' in readme
    assert "Each row of its tables is made again by `dqas-reproduce --profile tiny --run square`." in readme
    published = json.loads((reports / "notebooks" / "tiny" / "square.ipynb").read_text())
    assert "".join(published["cells"][0]["source"]) == (
        "[next](../../../notebooks/two.ipynb), ![picture](../../../notebooks/../reports/a.png), "
        "[page](https://a.example/b.md), `x[0](y)`"
    )
    assert [cell["metadata"].get("tags") for cell in published["cells"][1:3]] == [
        ["parameters"],
        ["injected-parameters"],
    ]
    assert all(cell["execution_count"] for cell in published["cells"] if cell["cell_type"] == "code")
    assert str(tmp_path) not in json.dumps(published)

    # nothing that was edited there, or that no run wrote, is touched
    before = {path: path.read_bytes() for path in reports.rglob("*.*") if "own" not in path.parts and path.is_file()}
    write_notebook(square, FINISH, FIGURE, "N + 1")
    write_profile(tmp_path, "{notebook: square, name: other, parameters: {N: 5}}", head=head)
    for name in ("notebooks/tiny/square.ipynb", "tables/tiny/notes.csv", "tiny.json", "README.md"):
        (reports / name).write_text("of the reader's own")
        capsys.readouterr()
        assert reproduce.main(["--profile", profile, "--publish"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: nothing was published: ")
        assert "restore it with git checkout" in error
        assert (reports / name).read_text() == "of the reader's own"
        (reports / name).unlink()
        for path in before:
            if path.relative_to(reports).as_posix() == name:
                path.write_bytes(before[path])
    after = {path: path.read_bytes() for path in reports.rglob("*.*") if "own" not in path.parts and path.is_file()}
    assert after == before
    # a run that is no longer in the profile goes, the new one comes
    assert reproduce.main(["--profile", profile, "--publish"]) == 0
    assert sorted(path.parent.name for path in reports.glob("tables/tiny/*/*.csv")) == ["other"]
    assert reproduce.main(["--profile", profile, "--reports", str(reports)]) == 2
    assert "holds the published results, which a run does not touch" in capsys.readouterr().err


def test_one_run_is_published_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    square, reports = tmp_path / "notebooks" / "square.ipynb", tmp_path / "reports"
    write_notebook(square, FINISH)
    runs = [f"{{notebook: square, name: {name}, parameters: {{N: {n}}}}}" for name, n in (("one", 3), ("two", 4))]
    profile = write_profile(tmp_path, *runs)
    command = ["--profile", profile, "--publish", "--run"]
    assert reproduce.main([*command, "two"]) == 0  # the other one is not even finished
    assert [run["name"] for run in json.loads((reports / "tiny.json").read_text())["runs"]] == ["two"]
    table = next(reports.glob("tables/tiny/two/*.csv"))
    written = table.stat().st_mtime_ns
    assert reproduce.main([*command, "one"]) == 0
    assert [run["name"] for run in json.loads((reports / "tiny.json").read_text())["runs"]] == ["one", "two"]
    assert (len(list(reports.glob("tables/tiny/*/*.csv"))), table.stat().st_mtime_ns) == (2, written)
    capsys.readouterr()


def test_a_published_notebook_does_not_tell_where_packages_lie(tmp_path: Path) -> None:
    output = "/home/a b/.venv/lib/site-packages/torch/nn.py:7: UserWarning: slow\nC:\\v\\site-packages\\x.py: so\n"
    write_notebook(tmp_path / "notebooks" / "square.ipynb", FINISH)
    profile = write_profile(tmp_path, "{notebook: square}")
    write_finished(tmp_path / "reports" / "own", load_profile(profile).runs[0], output=output)
    assert reproduce.main(["--profile", profile, "--publish"]) == 0
    published = nbformat.read(tmp_path / "reports" / "notebooks" / "tiny" / "square.ipynb", as_version=4)
    assert published.cells[-1].outputs[0].text == "torch/nn.py:7: UserWarning: slow\nx.py: so\n"


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
    output = capsys.readouterr().out
    assert "failed divides: ZeroDivisionError: division by zero (cell 3)" in output
    assert "failed leaves: 1 of its 3 code cells were not executed" in output
    assert (
        "failed forgets: it wrote no result.json: the last cell of a notebook calls run_outputs.finish(...)" in output
    )
    assert "failed dies: DeadKernelError: Kernel died" in output
    assert "not run after: it needs divides" in output
    assert f"repeat with: python -m dqas_lib.reproduce --profile {profile} --only-failed" in output
    assert "0 runs done" in output
    failed = next(record for record in records(tmp_path, "failed") if record["name"] == "divides")
    kept = tmp_path / "reports" / "own" / "failed" / f"divides-{failed['run']}" / "notebook.ipynb"
    assert "ZeroDivisionError" in kept.read_text()
    assert f"look into {kept}" in output
    assert list((tmp_path / "reports" / "own" / ".attempts").iterdir()) == []

    write_notebook(folder / "divides.ipynb", "1 / N", FINISH)
    assert reproduce.main(["--profile", profile, "--only-failed", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "0 finished, 5 to run" in output  # what failed last time, and what waits for it
    profile = write_profile(tmp_path, "{notebook: divides}")
    assert reproduce.main(["--profile", profile, "--only-failed"]) == 0
    assert reproduce.main(["--profile", profile]) == 0
    assert executed(tmp_path) == ["divides"]
    # --force runs what is finished, and keeps what was there beside it
    assert reproduce.main(["--profile", profile, "--force"]) == 0
    assert executed(tmp_path) == ["divides", "divides"]


def test_environment_of_a_run(tmp_path: Path) -> None:
    look = """\
names = ["DQAS_WORKERS", "OMP_NUM_THREADS", "TQDM_DISABLE", "CUDA_VISIBLE_DEVICES", "DQAS_DATA", "IPYTHONDIR"]
seen = {name: os.environ[name] for name in names}
import time; time.sleep(1)
(folder / "result.json").write_text(json.dumps({"finished": True, "values": seen, "versions": {}}))"""
    write_notebook(tmp_path / "notebooks" / "look.ipynb", FINISH, look)
    profile = write_profile(tmp_path, "{notebook: look, cores: 2}")
    assert reproduce.main(["--profile", profile, "--slots", "3"]) == 0
    (run,) = records(tmp_path)
    assert run["values"].pop("IPYTHONDIR").startswith(str(tmp_path / "reports" / "own" / ".attempts"))
    assert run["values"] == {
        **{"DQAS_WORKERS": "2", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""},
        "DQAS_DATA": str(tmp_path / "data"),
    }
    assert run["peak_memory_mb"] > 20
    assert (run["workers"], run["library"]) == (2, load_profile(profile).runs[0].notebook.library)
    head = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    assert run["commit"] == (head.stdout.strip() or None)
    assert run["changed"] in ((True, False) if run["commit"] else (None,))


def test_second_start_on_the_same_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    profile = write_profile(tmp_path, "{notebook: good}")
    (tmp_path / "reports" / "own").mkdir(parents=True)
    (tmp_path / "reports" / "own" / ".holder").write_text("process 1 on another\n")
    with open(tmp_path / "reports" / "own" / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert reproduce.main(["--profile", profile]) == 2
    error = capsys.readouterr().err
    assert "another reproduction (process 1 on another) works in" in error
    assert "--reports DIR" in error
    assert sorted(path.name for path in (tmp_path / "reports" / "own").iterdir()) == [".holder", ".lock"]


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
    launcher = [sys.executable, "-m", "dqas_lib.reproduce"]
    process = subprocess.Popen(
        [*launcher, "--profile", profile, "--slots", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupts),
    )
    attempts = str(tmp_path / "reports" / "own" / ".attempts")
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
    assert not (tmp_path / "reports" / "own" / "runs").exists()


def _kernels(attempts: str) -> list:
    processes = marked(lambda values: values[MARK].startswith(attempts))
    return [process for process in processes if any("kernel.py" in word for word in process.cmdline())]


def test_a_run_that_somebody_works_at_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster may start a run again while its first attempt still works."""
    write_notebook(tmp_path / "notebooks" / "good.ipynb", FINISH)
    (run,) = load_profile(write_profile(tmp_path, "{notebook: good}")).runs
    session, own = tmp_path / "session", tmp_path / "reports" / "own"
    session.touch()
    (own / ".attempts").mkdir(parents=True)
    job = Job(run, Site("tiny", "cpu", own, LIBRARY.parent, tmp_path, session, git={}), "", 1)

    def start(job: Job, attempt: Path) -> dict:
        write_finished(own, run)
        return {"status": "started"}

    monkeypatch.setattr(runs, "_attempt", start)
    with lock_of(own, run.id), ThreadPoolExecutor(1) as pool:
        second = pool.submit(execute, job)
        time.sleep(1.5)
        assert not second.done()
        session.unlink()
        assert second.result()["status"] == "stopped"
    session.touch()
    assert execute(job) == {"status": "started"}
    assert execute(job)["status"] == "done"  # done already: nothing is started


def test_notebook_with_the_librarys_own_finish(tmp_path: Path) -> None:
    """plots.show, run_outputs.save and run_outputs.finish as the real notebooks call them."""
    code = """\
import sys
from unittest.mock import MagicMock
torch = MagicMock(__version__="2.0", Tensor=type("Tensor", (), {}))  # only asked for its version
torch.backends.cpu.get_cpu_capability.return_value = "AVX2"
torch.cuda.is_available.return_value = False
sys.modules |= dict.fromkeys(("torch", "torch.nn", "torch.nn.attention", "torchvision"), torch)
import pandas as pd
from matplotlib import pyplot as plt
from dqas_lib.notebook import plots, run_outputs
figure, axis = plt.subplots()
axis.plot([1, 2], [1, N])
plots.show(figure, "line", "A line.")
run_outputs.save(pd.DataFrame({"n": [N]}), "numbers")
run_outputs.save_ids({"digits-random": pd.Series([7, N]).to_numpy()})
run_outputs.finish({"n": N})"""
    write_notebook(tmp_path / "notebooks" / "real.ipynb", code)
    assert reproduce.main(["--profile", write_profile(tmp_path, "{notebook: real, parameters: {N: 3}}")]) == 0
    (run,) = records(tmp_path)
    assert run["values"] == {"n": 3}
    place = outputs(tmp_path, "real")
    files = sorted(path.relative_to(place).as_posix() for path in place.glob("*/*"))
    figures = ["figures/line.png", "figures/line.svg", "figures/line.txt"]
    assert files == [*figures, "ids/digits-random.npy", "tables/numbers.csv"]
    assert np.load(place / "ids" / "digits-random.npy").tolist() == [7, 3]
    assert {"torch", "numpy", "papermill", "python"} <= set(run["versions"])
    assert 'alt=\\"A line.\\"' in (place / "notebook.ipynb").read_text()
