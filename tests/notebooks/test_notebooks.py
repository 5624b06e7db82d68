"""Every notebook is well formed, runs from its first cell to its last, its solutions and its numbers are right."""

import ast
import dataclasses
import functools
import json
import re
import statistics
from pathlib import Path
from xml.etree import ElementTree

import mistune
import nbformat
import notebook_checks
import numpy as np
import papermill
import pytest
from hostile_names import FOUR, Page
from in_process import NOTEBOOKS, Run, cells, execute, parameters, solutions
from wrong_answers import WRONG

from dqas_lib.data.export import export_folder
from dqas_lib.data.load import load_images
from dqas_lib.patches.autoencoder_training import AUTOENCODERS
from dqas_lib.training.recipes import RECIPES

# Recipes of their own, as a user would add them; one for all, so that what a notebook has trained others only read.
RECIPES.register(dataclasses.replace(RECIPES["quick"], name="brief", steps=60))
AUTOENCODERS.register(dataclasses.replace(AUTOENCODERS["quick"], name="brief", steps=100))

# Smaller than the defaults, so that all of them run in two minutes; the published sizes run by `make reproduce`.
SMALLER: dict[str, dict] = {
    "00_start_here": {"RECIPE": "brief"},
    "01_class_sensitivity": {"METHODS": ["random", "dm"], "SEEDS": [0, 1], "DISTIL_STEPS": 20, "RECIPE": "brief"},
    "02_patchify": {"THETA": 0.5, "THETAS": [0.5], "RECIPE": "brief", "AUTOENCODER": "brief"},
    "03_features_and_bins": {"N_BINS": 8},
    "04_class_budget": {"SEEDS": [0, 1], "RECIPE": "brief"},
    "05_active_sampling": {"VARIANTS": ["dqas"], "RECIPE": "brief"},
    "06_train_and_evaluate": {
        "METHODS": ["random", "dq"],
        "TREATED": "dq",
        "RATIOS": [0.1],
        "SEEDS": [0, 1, 2],
        "RECIPE": "brief",
    },
    "07_ratio_explorer": {"RATIOS": [0.05, 0.1], "RECIPE": "brief"},
    "08_comparison": {
        "METHODS": ["random", "dq"],
        "TREATED": "dq",
        "RATIOS": [0.1],
        "SEEDS": [0, 1, 2],
        "RECIPE": "brief",
    },
    "09_ablations": {
        "RATIO": 0.1,
        "VARIANTS": ["no patchify"],
        "SEEDS": [0, 1],
        "ORDERS": ["none", "last"],
        "RECIPE": "brief",
        "AUTOENCODER": "brief",
    },
    "11_bytes": {
        "BYTES": ["30%"],
        "METHODS": ["random, lossless", "half, twice the bytes", "fitted"],
        "SEEDS": [0],
        "RECIPE": "brief",
    },
    "12_choices": {
        "RATIOS": [0.1],
        "SEEDS": [0, 1, 2],
        "TRIED": ["herding", "window 30/10, herding"],
        "RECIPE": "brief",
    },
    "10_your_own_images": {"SEEDS": [0, 1], "RECIPE": "brief"},
    "13_all_methods": {"METHODS": ["herding", "el2n", "dq"], "OTHERS": ["jpeg"], "RECIPE": "brief"},
    "14_your_own_method": {"RIVALS": ["random", "herding"], "SEEDS": [0, 1, 2], "RECIPE": "brief"},
}
# A second, legal set: a data set of the reader's own with four classes, one ratio, too few seeds for an interval.
RECIPES.register(dataclasses.replace(RECIPES["quick"], name="flash", steps=15))
OTHER: dict[str, dict] = {
    "00_start_here": {"RATIO": 0.2, "SEED": 1},
    "01_class_sensitivity": {"METHODS": ["herding"], "RATIOS": [0.1, 0.4], "SEEDS": [2]},
    "02_patchify": {"THETA": 0.2, "THETAS": [0.5], "RULES": ["importance"], "STORED_RATIO": 0.2, "SEEDS": [1]},
    "03_features_and_bins": {"N_BINS": 5, "THETA": 0.5, "LAMBDA": 2.0, "SEED": 1},
    "04_class_budget": {
        "RATIO": 0.2,
        "PILOT_RATIOS": [0.1, 0.3],
        "SEEDS": [1],
        "SHRINK": 0.0,
        "MY_WEIGHTS": [1, 2, 1, 1],
    },
    "05_active_sampling": {"RATIO": 0.2, "SEED": 1, "SEEDS": [3], "VARIANTS": ["dqas"]},
    "06_train_and_evaluate": {
        "METHODS": ["dqas-plus", "random"],
        "TREATED": "dqas-plus",
        "RATIOS": [0.2],
        "SEEDS": [1, 2],
    },
    "07_ratio_explorer": {
        "METHODS": ["herding"],
        "RATIOS": [0.1, 0.2],
        "SEEDS": [1],
        "ROUNDS_AT": 0.2,
        "COMPUTE": True,
    },
    "08_comparison": {"METHODS": ["dqas-plus", "random"], "TREATED": "dqas-plus", "RATIOS": [0.2], "SEEDS": [1]},
    "09_ablations": {"RATIO": 0.2, "VARIANTS": [], "SEEDS": [1, 2], "ORDERS": ["first", "last"], "ORDERED": "dq"},
    "10_your_own_images": {"RATIO": 0.2, "SEEDS": [1], "DUPLICATES": "keep", "FIT": "pad"},
    "11_bytes": {"BYTES": [9000], "METHODS": ["all, WebP", "random, lossless"], "SEEDS": [1]},
    "12_choices": {"RATIOS": [0.2], "SEEDS": [1, 2], "TRIED": ["dq"], "VALIDATION": 0.3},
    "13_all_methods": {"RATIO": 0.2, "METHODS": ["margin"], "OTHERS": [], "SEEDS": [1]},
    "14_your_own_method": {"RIVALS": ["dq"], "RATIOS": [0.2], "SEEDS": [1], "VALIDATION": 0.3},
}
STORE_CALLS = ("load_or_compute", "store.get(", "store.put(", "fingerprint()")
MARKS = {"abstract", "summary", "DQ", "ours"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory):
    """One store for all notebooks: what one has trained the next one reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQAS_DATA", str(tmp_path_factory.mktemp("notebooks") / "data"))
        patch.setenv("DQAS_WORKERS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MPLBACKEND", "Agg")
        yield patch


@pytest.fixture(scope="module")
def run_of(environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """Path -> what a notebook and its solutions left, executed once."""

    @functools.cache
    def run(path):
        folder = tmp_path_factory.mktemp(path.stem)
        environment.setenv("DQAS_RUN_DIR", str(folder))
        return execute(path, folder, SMALLER[path.stem])

    return run


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
    for line in parameters(path).splitlines():
        assert re.match(r"^[A-Z][A-Z0-9_]* = .+  # \S", line), f"parameter line without comment: {line}"
        ast.literal_eval(line.split(" = ", 1)[1].split("  # ")[0])
    assert "run_outputs.finish(" in code[-1].source
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert "Takeaway" in text
    assert 2 <= len(solutions(path)) <= 6
    assert all("assert" in solution for solution in solutions(path))
    words = len(re.findall(r"\w+", text))
    lines = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in code]
    assert words >= 6 * sum(lines), f"{words} words for {sum(lines)} lines of code"
    assert statistics.median(lines) <= 12, f"half of the code cells have more than {statistics.median(lines)} lines"
    assert max(lines) <= 30, f"a code cell of {max(lines)} lines"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_speaks_to_the_library(path):
    """Store keys are the library's business, and a mark names one of four sources."""
    sources = [cell.source for kind in ("code", "markdown") for cell in cells(path, kind)]
    used = [call for call in STORE_CALLS if any(call in source for source in sources)]
    assert not used, f"{path.stem} calls {used}"
    text = "\n".join(sources)
    assert "[paper" not in text
    for mark in re.findall(r"\[((?:abstract|summary|DQ|ours|paper)\b[^\]\[]*)\]", text):
        kinds = {re.split(r"[: ]", part.strip())[0] for part in mark.split(";")}
        assert kinds & MARKS, f"{path.stem}: [{mark}]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_its_solutions(path, run_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = run_of(path)
    assert run.alts
    assert all(len(alt) > 30 for alt in run.alts)
    assert all("nan" not in alt.lower().split() for alt in run.alts)
    assert sum(len(json.dumps(output, default=str)) for output in run.outputs) < 3_000_000
    getattr(notebook_checks, f"check_{path.stem[:2]}")(run)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in WRONG], ids=lambda path: path.stem)
def test_wrong_answers_are_refused(path, run_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_of(path).names
    for number, right, wrong in WRONG[path.stem]:
        solution = solutions(path)[number - 1]
        assert solution.count(right) == 1, f"solution {number} does not say: {right}"
        with pytest.raises(AssertionError):
            exec(solution.replace(right, wrong), dict(names))  # the right one has been executed, and accepted


@pytest.fixture(scope="module")
def few(environment, tmp_path_factory) -> dict[str, str]:
    """Four of the ten digits, under names that would do harm, as a prepared file and as a folder of pictures."""
    root = tmp_path_factory.mktemp("few")
    data = load_images("digits")
    parts = {}
    for name, step in (("train", 1), ("test", 2)):
        images = getattr(data, name)
        chosen = np.flatnonzero(images.labels < 4)[:: 2 * step]
        parts |= {f"{name}_images": images.images[chosen], f"{name}_labels": images.labels[chosen]}
    prepared = root / "few <i onclick=harm()> $x$ `.npz"
    np.savez(prepared, **parts, class_names=FOUR)
    few = load_images(prepared)
    for part in ("train", "test"):
        export_folder(getattr(few, part), root / "pictures" / part)
    return {"DATASET": str(prepared), "FOLDER": str(root / "pictures")}


def check_names_are_text(run: Run, folder: Path) -> None:
    """No name has become an element, an attribute, a link, a comment or a formula, in any output or SVG."""
    shown = {
        kind: [Page(read(output[f"text/{kind}"])) for output in run.outputs if f"text/{kind}" in output]
        for kind, read in (("markdown", mistune.html), ("html", str))
    }
    for page in [*shown["markdown"], *shown["html"]]:
        active = [one for one in page.active if not re.fullmatch(r"href=https://arxiv\.org/abs/[\d.]+", one)]
        assert (active, page.comments, "$" in page.math) == ([], [], False), page.text
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    tags = {tag for page in shown["markdown"] for tag in page.tags}
    assert tags <= {"p", "strong", "em", "code", "ul", "li", "a", *table}
    tags = {tag for page in shown["html"] for tag in page.tags}
    assert tags <= {"figure", "img", "figcaption", "details", "summary", "p", "div", "style", *table}
    for path in folder.rglob("*.svg"):
        parts = list(ElementTree.parse(path).getroot().iter())
        assert not any(key.startswith("on") for part in parts for key in part.attrib)
        assert {part.tag.split("}")[1] for part in parts}.isdisjoint({"script", "foreignObject", "b", "i", "a"})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_other_parameters(path, few, environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment.setenv("DQAS_RUN_DIR", str(tmp_path))
    names = {line.split(" = ")[0] for line in parameters(path).splitlines()}
    given = {"RECIPE": "flash", "AUTOENCODER": "brief", "DATASETS": [few["DATASET"]], **few, **OTHER[path.stem]}
    run = execute(path, tmp_path, {name: value for name, value in given.items() if name in names})
    assert run.alts
    assert all("nan" not in alt.lower().split() for alt in run.alts)
    check_names_are_text(run, tmp_path)


def test_the_kernel_of_papermill_gives_the_same(run_of, environment, tmp_path, monkeypatch):
    """The route of `make reproduce`: papermill, a kernel, parameters put into the notebook; nothing is in its store."""
    monkeypatch.chdir(tmp_path)
    (path,) = (path for path in NOTEBOOKS if path.stem == "03_features_and_bins")
    in_shell = run_of(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQAS_RUN_DIR", str(tmp_path))
        patch.setenv("DQAS_DATA", str(tmp_path / "data"))
        papermill.execute_notebook(path, tmp_path / "out.ipynb", SMALLER[path.stem], progress_bar=False, cwd=tmp_path)
    assert Run(tmp_path, {}, []).values == in_shell.values
    outputs = [output for cell in cells(tmp_path / "out.ipynb", "code") for output in cell.outputs]
    pictures = sum("image/png;base64" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert pictures == len(list((in_shell.folder / "figures").glob("*.png"))) > 3
