"""Every notebook is well formed, runs from its first cell to its last, and its solutions are right."""

import ast
import json
import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbclient import NotebookClient
from places import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))

# Smaller than the defaults, so that all of them run in minutes; the published sizes run by `make reproduce`.
SMALLER: dict[str, dict] = {
    "01_class_sensitivity": {"METHODS": ["random", "herding"], "SEEDS": [0, 1], "RATIOS": [0.04, 0.1]},
    "02_patchify": {"THETAS": [0.25, 0.5]},
    "06_train_and_evaluate": {"METHODS": ["random", "dqas"], "RATIOS": [0.05], "SEEDS": [0, 1], "SURVEY_SEEDS": []},
    "08_comparison": {"METHODS": ["random", "dqas"], "RATIOS": [0.05], "SEEDS": [0, 1]},
    "09_ablations": {"VARIANTS": ["equal counts"], "SEEDS": [0, 1]},
}


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def parameters(path):
    (cell,) = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    return cell


def solutions(path):
    """The ```python blocks inside <details>, in order."""
    found = []
    for cell in cells(path, "markdown"):
        for block in re.findall(r"<details>.*?</details>", cell.source, re.DOTALL):
            found += re.findall(r"```python\n(.*?)```", block, re.DOTALL)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = cells(path, "code")
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    for needed in ("You will learn", "CPU", "GPU", "memory", "You need"):
        assert needed in first.source, f"the opening does not say: {needed}"
    assert first.source.startswith("# ")
    for line in parameters(path).source.splitlines():
        assert re.match(r"^[A-Z][A-Z0-9_]* = .+  # \S", line), f"parameter line without comment: {line}"
        ast.literal_eval(line.split(" = ", 1)[1].split("  # ")[0])
    assert "tables.finish(" in code[-1].source
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert "Takeaway" in text
    assert 2 <= len(solutions(path)) <= 6
    assert all("assert" in solution for solution in solutions(path))
    words = len(re.findall(r"\w+", text))
    lines = sum(len([line for line in cell.source.splitlines() if line.strip()]) for cell in code)
    assert words >= 2 * lines, f"{words} words for {lines} lines of code"


class Pictures(HTMLParser):
    def __init__(self):
        super().__init__()
        self.alts = []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes).get("alt") or "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_its_solutions(path, tmp_path, tmp_path_factory, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    given = SMALLER.get(path.stem, {})
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    names = {line.split(" = ")[0] for line in parameters(path).source.splitlines()}
    assert set(given) <= names
    injected = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(injected))
    notebook.cells += [nbformat.v4.new_code_cell(solution) for solution in solutions(path)]
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("DQAS_DATA", str(tmp_path_factory.getbasetemp() / "data"))
    monkeypatch.setenv("DQAS_WORKERS", "1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["finished"] is True
    assert result["values"]
    pictures = Pictures()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            pictures.feed(output.get("data", {}).get("text/html", ""))
    assert pictures.alts
    assert all(len(alt) > 30 for alt in pictures.alts)
    assert all("nan" not in alt.lower().split() for alt in pictures.alts)
    assert len(json.dumps(notebook)) < 3_000_000
    check = CHECKS.get(path.stem)
    if check is not None:
        check(result["values"])


def check_start(values):
    assert values["budget"] == sum(values["class_counts"]) == 120
    assert values["accuracy"]["all images"] > 0.97
    assert values["accuracy"]["dqas"] > 0.9


def check_sensitivity(values):
    assert set(values["sensitivity"]) == {"random", "herding"}
    assert all(len(slopes) == 10 and min(slopes) >= 0 < max(slopes) for slopes in values["sensitivity"].values())
    (correlation,) = values["rank_correlation"]
    assert -1 <= correlation <= 1


def check_patchify(values):
    assert all(found["autoencoder"] > found["mean color"] + 2 for found in values["psnr"].values())
    assert values["rules"]["importance x error"] > values["rules"]["importance"] + 3  # dB of what is dropped
    assert values["stored_ratio"] == pytest.approx(0.1, abs=1e-3)
    change = {(line["equal"], line["rule"], line["theta"]): line["difference"] for line in values["changes"]}
    assert len(change) == 8
    assert (
        change["images", "importance x error", 0.5] > change["images", "importance", 0.5] + 0.05
    )  # -25 against -2 points


def check_bins(values):
    assert values["equal_picks"] == 22
    assert values["cosine_inside"] > values["cosine_outside"]
    assert values["cosine_first_bin"] > values["cosine_last_bin"]


def check_evaluation(values):
    assert values["trainings"] == 2 * 2 + 2
    assert values["survey"] == []  # off by default: it trains every method
    (pair,) = values["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == ("dqas", "random", 2)
    assert -0.1 < pair["difference"] < 0.2


CHECKS = {
    "00_start_here": check_start,
    "01_class_sensitivity": check_sensitivity,
    "02_patchify": check_patchify,
    "03_features_and_bins": check_bins,
    "06_train_and_evaluate": check_evaluation,
}
