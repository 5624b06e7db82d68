"""The same grid on a Dask cluster of two worker processes, one of which is killed in the middle."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from tiny_notebooks import FINISH, write_notebook, write_profile

from dqas_lib.reproduce import cli as reproduce
from dqas_lib.reproduce.child import MARK, marked

distributed = pytest.importorskip(
    "distributed", reason="the extra 'distributed' is not installed: this checked nothing"
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, local_directory=str(tmp_path / "dask")) as cluster:
        yield cluster


def owners(root: Path) -> set[int]:
    """Process ids of the workers that runs are on at the moment."""
    pids = set()
    for process in marked(lambda values: values[MARK].startswith(str(root))):
        with contextlib.suppress(psutil.Error, OSError):
            if any("child.py" in word for word in process.cmdline()):
                pids.add(process.ppid())
    return pids


@pytest.mark.slow  # three imports of PyTorch, half a minute
def test_a_killed_worker_costs_nothing_that_was_finished(
    tmp_path: Path, cluster, capsys: pytest.CaptureFixture
) -> None:
    write_notebook(tmp_path / "notebooks" / "square.ipynb", "import time; time.sleep(2)", FINISH)
    profile = write_profile(
        tmp_path,
        "{notebook: square, grid: {N: [2, 3, 4]}}",
        "{notebook: square, name: last, parameters: {N: 5}, needs: [square]}",
    )
    killed: list[int] = []

    def kill_a_worker() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            working = owners(tmp_path)
            if len(working) == 2:  # both work, in processes other than this one
                killed.append(min(working))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.1)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    status = reproduce.main(["--profile", profile, "--scheduler", cluster.scheduler_address])
    killer.join()
    output = capsys.readouterr().out
    assert status == 0, output
    assert len(killed) == 1
    assert killed[0] != os.getpid()
    records = [(path, json.loads(path.read_text())) for path in (tmp_path / "reports/own/runs").glob("*/run.json")]
    assert {record["name"]: (path.parent / "tables" / "rows.csv").read_text() for path, record in records} == {
        "last": "n,square\n5,25\n",
        **{f"square-{n}": f"n,square\n{n},{n * n}\n" for n in (2, 3, 4)},
    }
    assert len(records) == 4
    assert owners(tmp_path) == set()
