"""Notebooks of three cells that import no PyTorch, and a project of them: for tests of how notebooks are run."""

import json
from pathlib import Path

from dqas_lib.reproduce.folder import place_of
from dqas_lib.reproduce.profiles import Run

KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
# what run_outputs.finish and run_outputs.save write, without their imports, which take seconds
FINISH = """\
import json, os, pathlib
folder = pathlib.Path(os.environ["DQAS_RUN_DIR"])
(folder / "tables").mkdir(exist_ok=True)
(folder / "tables" / "rows.csv").write_text(f"n,square\\n{N},{N * N}\\n")
(folder / "result.json").write_text(json.dumps({"finished": True, "values": {"n": N}, "versions": {}}))"""


def write_notebook(path: Path, *cells: str, parameters: str = "N = 1  # a number", prose: str = "Squares.") -> None:
    """A notebook of a sentence, a parameters cell and the given code cells."""

    def cell(number: int, kind: str, source: str, tags: list[str]) -> dict:
        empty = {"outputs": [], "execution_count": None} if kind == "code" else {}
        metadata = {"tags": tags} if tags else {}
        return {"cell_type": kind, "id": f"cell{number}", "metadata": metadata, "source": source, **empty}

    parts = [cell(0, "markdown", prose, []), cell(1, "code", parameters, ["parameters"])]
    parts += [cell(number, "code", source, []) for number, source in enumerate(cells, start=2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = {"cells": parts, "metadata": {"kernelspec": KERNELSPEC}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")


def write_profile(root: Path, *runs: str, name: str = "tiny", head: str = "device: cpu") -> str:
    """A profile of runs in YAML flow style; gives its path, for --profile."""
    path = root / "notebooks" / "profiles" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, "runs:", *(f"  - {run}" for run in runs)]) + "\n", encoding="utf-8")
    return str(path)


def write_finished(own: Path, run: Run, *, profile: str = "tiny", output: str = "", values: dict | None = None) -> None:
    """What a run leaves behind, written by hand in no time; output: what its last cell printed."""
    notebook = json.loads(run.notebook.content)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        cell["execution_count"] = number
    if output:
        cells[-1]["outputs"] = [{"output_type": "stream", "name": "stderr", "text": output}]
    record = {
        **{"run": run.id, "profile": profile, "name": run.name, "status": "done", "seconds": 1.5},
        **{"parameters": {}, "values": values or {}, "versions": {}, "machine": "by hand", "device": "cpu"},
        **{"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:01Z"},
    }
    folder = place_of(own, run)
    folder.mkdir(parents=True)
    (folder / "notebook.ipynb").write_text(json.dumps(notebook))
    (folder / "result.json").write_text(json.dumps({"finished": True, "values": {}, "versions": {}}))
    (folder / "run.json").write_text(json.dumps(record))
