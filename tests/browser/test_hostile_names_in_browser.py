"""Names that would do harm, in chromium: nothing of them runs, loads or becomes an element."""

import matplotlib as mpl
import mistune
import numpy as np
import pandas as pd
import pytest
from hostile_names import NAMES, reports_of_names
from matplotlib import pyplot as plt

from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.core.texts import plain
from dqas_lib.explorers.class_budget import BudgetExplorer
from dqas_lib.explorers.frames import draw_frame
from dqas_lib.explorers.pages import write_page
from dqas_lib.notebook import plots

pytestmark = pytest.mark.browser
FOREIGN = (
    "svg, b, i, script:not([id='frames']):not([data-own]), img[src='x'], a[href], [onload], [onerror], [onmouseover]"
)


@pytest.fixture
def page(browser):
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("window.harmed = 0; window.harm = () => { window.harmed += 1; }")
    yield page
    context.close()


def check(page, own_scripts: int = 0) -> None:
    page.wait_for_timeout(200)
    found = page.evaluate("selector => [...document.querySelectorAll(selector)].map(e => e.outerHTML)", FOREIGN)
    assert len(found) == own_scripts, found
    assert page.evaluate("window.harmed") == 0


def test_names_on_pages(page, tmp_path):
    n = len(NAMES)
    curves = fit_curves(np.outer([1, 2], np.ones(n)), np.outer([0.5, 0.4], np.ones(n))[None])
    caps, budgets = np.full(n, 9), {"budgets": (n, 2 * n), "kappas": (0.0,)}
    explorer = BudgetExplorer(NAMES, curves, np.linspace(1, 0.1, n), caps, **budgets)
    page.goto(write_page(explorer, tmp_path).as_uri())
    check(page, own_scripts=1)
    assert NAMES[0] in page.locator("#caption").inner_text()
    table = plots.table(pd.DataFrame({"file": NAMES, "reason": [*NAMES]})).to_html()
    said = "".join(mistune.html(f"Class **{plain(name)}** has most.\n") for name in NAMES)
    (tmp_path / "cells.html").write_text(f"<meta charset=utf-8>{table}{said}{draw_frame(explorer, (0, 0)).html()}")
    page.goto((tmp_path / "cells.html").as_uri())
    check(page)
    assert page.locator("td").count() == 2 * n
    assert page.locator("strong").count() == n


def test_names_in_reports(page, tmp_path):
    readme, compared = reports_of_names(tmp_path)
    markdown = mistune.create_markdown(escape=False, plugins=["url", "table", "strikethrough"])
    (tmp_path / "readme.html").write_text(f"<meta charset=utf-8>{markdown(readme)}".replace("<a ", "<ins "))
    (tmp_path / "compared.html").write_text(compared)
    for name in ("readme", "compared"):
        page.goto((tmp_path / f"{name}.html").as_uri())
        check(page)
        assert NAMES[0] in page.locator("body").inner_text()


def test_names_in_svg(page, tmp_path, monkeypatch):
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(plots, "display", lambda _: None)
    with mpl.rc_context(plots.style()):
        figure, axis = plt.subplots(figsize=(6, 9))
        axis.set_yticks(range(len(NAMES)), NAMES)
        plots.show(figure, "names", NAMES[0])
    page.goto((tmp_path / "figures" / "names.svg").as_uri())
    page.wait_for_timeout(200)
    active = "script, foreignObject, b, i, a, [onload], [onclick], [onmouseover], [onerror]"
    assert page.evaluate(f"document.querySelectorAll('{active}').length + (window.harmed || 0)") == 0
    assert NAMES[0] in page.evaluate("document.documentElement.textContent")
