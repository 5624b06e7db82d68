"""Names of files and classes are only ever text: in Markdown, tables, pages of explorers, reports and SVG."""

import csv
from html import unescape
from xml.etree import ElementTree

import matplotlib
import mistune
import numpy as np
import pandas as pd
import pytest
from hostile_names import NAMES, Page
from matplotlib import pyplot as plt

from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.core.texts import plain
from dqas_lib.explorers.class_budget import BudgetExplorer
from dqas_lib.explorers.frames import draw_frame
from dqas_lib.explorers.pages import write_page
from dqas_lib.notebook import plots
from dqas_lib.reproduce.report import render

matplotlib.use("Agg")


def shown(name: str) -> str:
    """What `plain` shows of a name."""
    text = name if len(name) <= 80 else f"{name[:79]}…"
    return "".join("□" if sign in "\r\n\u202e" else sign for sign in text).replace("$", "\uff04")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_markdown(name):
    page = Page(mistune.html(f"Class **{plain(name)}** has most."))
    assert page.tags == ["p", "strong"]
    assert page.text.strip() == f"Class {shown(name)} has most."
    assert (page.active, page.comments) == ([], [])
    assert "$" not in plain(name)


def test_names_in_a_table():
    rows = pd.DataFrame({"file": NAMES, **{name: 1 for name in NAMES[:3]}})
    page, plain_page = (
        Page(plots.table(each).to_html()) for each in (rows, rows.set_axis([*"abcd"], axis=1).assign(a="x"))
    )
    assert page.tags == plain_page.tags
    assert (page.active, page.comments) == ([], [])
    assert "$" not in page.text
    assert all(name.replace("$", "\uff04")[:60] in page.text for name in NAMES if name.isprintable())


def test_names_on_a_page_of_an_explorer(tmp_path):
    n = len(NAMES)
    curves = fit_curves(np.outer([1, 2], np.ones(n)), np.outer([0.5, 0.4], np.ones(n))[None])
    budgets = {"budgets": (n, 2 * n), "kappas": (0.0,)}
    made = BudgetExplorer(NAMES, curves, np.linspace(1, 0.1, n), np.full(n, 9), **budgets)
    usual = BudgetExplorer(tuple(f"class {c}" for c in range(n)), curves, made.errors, made.caps, **budgets)
    pages = [Page(write_page(each, tmp_path).read_text()) for each in (made, usual)]
    assert pages[0].tags == pages[1].tags
    assert [a for a in pages[0].active if not a.startswith("href=data:")] == []
    assert pages[0].comments == []
    frame = Page(draw_frame(made, (0, 0)).html())
    assert frame.tags == ["figure", "img", "figcaption"]
    assert NAMES[0] in frame.text


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_an_svg(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(plots, "display", lambda _: None)
    with matplotlib.rc_context(plots.style()):
        figure, axis = plt.subplots(figsize=(1, 1))
        axis.set_title(name)
        plots.show(figure, "x", name)
    svg = ElementTree.parse(tmp_path / "figures" / "x.svg").getroot()
    attributes = [key for part in svg.iter() for key in part.attrib if key.startswith("on")]
    assert attributes == []
    assert {part.tag.split("}")[1] for part in svg.iter()}.isdisjoint({"script", "image", "foreignObject", "b"})


def test_names_in_the_report(tmp_path):
    table = tmp_path / "tables" / "tiny" / "run" / "rows.csv"
    table.parent.mkdir(parents=True)
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["class", "n"], *([name, 1] for name in NAMES)])
    files = {"tables/tiny/run/rows.csv": "0"}
    run = {"run": "1", "name": "run", "started": "", "ended": "", "seconds": 1.0, "machine": "", "parameters": {}}
    profile = {"profile": "tiny", "title": "Tiny", "full": False, "runs": [{**run, "files": files}]}
    text = render("README.md", tmp_path, profiles=[profile], claims=[])
    lines = [line for line in text.splitlines() if line.startswith("|") and line.endswith("| 1 |")]
    assert len(lines) == len(NAMES)
    assert not any("<" in line or "`" in line for line in lines)
    assert unescape(lines[0]) == f"| {NAMES[0]} | 1 |"
