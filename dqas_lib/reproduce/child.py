"""One notebook, executed by papermill in a process of its own: `python -P child.py FOLDER`, started by runs.py.

Imports nothing of the library, so that it starts without PyTorch. FOLDER holds job.json and source.ipynb; the process
writes notebook.ipynb after every cell, `cell`, which says which one is at work, and child.json: seconds, peak memory
and, if it failed, why.

Its standard input is a pipe that its parent never writes to: when the pipe closes, the parent is gone, however it
ended, and this process ends itself and all that it started. A kernel runs in a session of its own, so process groups do
not reach it; every process of a run carries the run's folder in its environment (MARK) and is found by that.
"""

import contextlib
import itertools
import json
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

MARK = "DQAS_RUN_DIR"
SAMPLE_SECONDS = 2.0  # reading the shared pages of all processes costs some 0.05 s a time


def marked(belongs: Callable[[dict[str, str]], bool]) -> list[psutil.Process]:
    """Processes of this user whose environment has MARK and satisfies `belongs`, this one excepted."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ()
            if process.pid != os.getpid() and MARK in environment and belongs(environment):
                processes.append(process)
    return processes


def kill_marked(belongs: Callable[[dict[str, str]], bool], *, patience: float = 10.0) -> int:
    """Kill them, and what they start meanwhile, until none is left; gives how many were killed."""
    killed, deadline = set(), time.monotonic() + patience
    while time.monotonic() < deadline and (processes := marked(belongs)):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        psutil.wait_procs(processes, timeout=1)
    return len(killed)


class Watcher(threading.Thread):
    """Ends the run when the parent is gone, and samples the memory of all its processes meanwhile."""

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self.mark, self.peak_bytes = mark, 0

    def run(self) -> None:
        """Watch until the process ends."""
        while True:
            readable, _, _ = select.select([sys.stdin.fileno()], [], [], SAMPLE_SECONDS)
            if readable and not os.read(sys.stdin.fileno(), 1):
                kill_marked(lambda environment: environment[MARK] == self.mark)
                os._exit(70)
            self.peak_bytes = max(self.peak_bytes, self._memory())

    def _memory(self) -> int:
        """Memory of this process and all below it, each shared page counted once where the system tells (PSS)."""
        total, own = 0, psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
        return total


def leave_out_formats() -> None:
    """What jsonschema would import for formats that no notebook uses: a grammar of URLs takes 3 s, dates take 0.3 s."""
    sys.modules.update(dict.fromkeys(("rfc3987_syntax", "isoduration")))  # type: ignore[arg-type]


def last_line(error: BaseException) -> str:
    """What went wrong, in a line: the exception inside the notebook when there is one."""
    name, cell = getattr(error, "ename", None), getattr(error, "cell_index", None)
    text = f"{name}: {getattr(error, 'evalue', None)}" if name else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:600] + (f" (cell {cell + 1})" if cell is not None else "")


def main(folder: Path) -> int:
    """Execute FOLDER/source.ipynb; the exit status is 0 only when every cell ran."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    watcher = Watcher(os.environ[MARK])
    watcher.start()
    leave_out_formats()
    import nbformat
    import papermill
    from nbformat.sign import NotebookNotary

    started, error = time.perf_counter(), None
    source, target = folder / "source.ipynb", folder / "notebook.ipynb"
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    total = sum(cell["cell_type"] == "code" and bool("".join(cell["source"]).strip()) for cell in cells)
    numbers = itertools.count(1)

    def at_work(**_: Any) -> None:
        (folder / "bar").unlink(missing_ok=True)
        (folder / "cell").write_text(f"cell {next(numbers)}/{total + bool(job['parameters'])}", encoding="utf-8")

    options = {"progress_bar": False, "start_timeout": 300, "coalesce_streams": True, "on_cell_execute": at_work}
    try:
        papermill.execute_notebook(source, target, job["parameters"], kernel_name=job["kernel"], **options)
        with contextlib.suppress(Exception):  # for this user: JupyterLab shows its widgets and styles without asking
            NotebookNotary().sign(nbformat.read(target, as_version=4))
    except Exception as caught:
        error = last_line(caught)
        traceback.print_exc()  # into the run's log.txt
    finally:
        seconds, peak = round(time.perf_counter() - started, 3), round(watcher.peak_bytes / 2**20)
        report = {"seconds": seconds, "peak_memory_mb": peak, "error": error, "papermill": papermill.__version__}
        (folder / "child.json").write_text(json.dumps(report), encoding="utf-8")
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
