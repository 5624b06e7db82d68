"""Names that files and classes may have: each would do harm somewhere, if it were taken for more than text."""

import csv
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

from dqas_lib.reproduce.report import render
from dqas_lib.reproduce.verify import Difference, Verdict

NAMES = (
    "<svg onload=harm()>",
    "<img src=x onerror=harm()>",
    "<script>harm()</script>",
    "</script><script>harm()</script>",
    "<!-- all that follows",
    "--><b>bold</b>",
    '" onmouseover="harm()',
    "' onmouseover='harm()",
    "javascript:harm()",
    "[text](javascript:harm())",
    "![picture](x)",
    "**bold** _or_ ~~not~~",
    "`code` and ```fence",
    "a | b | c",
    "$x^2$ and $\\frac{",
    "line\nend\r\n# heading",
    "mark \u202egnp.exe",
    "a" * 300,
    "&lt;b&gt; &amp; &#60;i>",
    "{{ 7 * 7 }} {% raw %} \\",
    "https://harm.example/x or www.harm.example",
    "\\(x^2\\) \\[y\\] \\begin{equation}z\\end{equation}",
    "__init__ _x_ snake_case a__b",
)
# the same marks in four names, short enough that nothing of them is cut off
FOUR = (
    "<svg onload=harm()> <!-- & \" onload='harm()",
    "$x^2$ and $\\frac{ `code` **bold** _or_ ~~not~~",
    "[text](javascript:harm()) ![p](x) a | b |",
    "<b>bold</b>\n# heading \u202egnp.exe {{ 7 * 7 }}",
)


class Page(HTMLParser):
    """The tags, the attributes that do something, the comments and the text of a page; math: text with formulas."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.active, self.text, self.comments, self.math = [], [], "", [], ""
        self._plain: list[str] = []  # open elements from the first one on that shows no formulas
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.active += [f"{name}={value}" for name, value in attributes if name.startswith("on") or name == "href"]
        if self._plain or "mathjax_ignore" in (dict(attributes).get("class") or "").split():
            self._plain += [tag] * (tag not in ("img", "br", "input"))

    def handle_endtag(self, tag):
        if self._plain:
            self._plain.pop()

    def handle_data(self, data):
        self.text += data
        self.math += "" if self._plain else data

    def handle_comment(self, data):
        self.comments.append(data)


STEM = "figures/tiny/run/06 <i onclick=harm()> $x$ `"  # what a figure of a data set of that name is called
LINKED = (f"{quote(STEM)}.svg", "tables/tiny/run/rows.csv")


def reports_of_names(folder: Path) -> tuple[str, str]:
    """A README of reports, and a page of one's own and published figures, full of these names, in the folder."""
    table = folder / "tables" / "tiny" / "run" / "rows.csv"
    table.parent.mkdir(parents=True)
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([["class", "n"], *([name, 1] for name in NAMES)])
    files = dict.fromkeys(("tables/tiny/run/rows.csv", f"{STEM}.png", f"{STEM}.svg"), "0")
    run = {"run": "1", "name": "run", "started": "", "ended": "", "seconds": 1.0, "machine": "", "files": files}
    run["parameters"] = {"DATASET": " ".join(NAMES)}
    profile = {"profile": "tiny", "title": "Tiny", "full": False, "runs": [run]}
    readme = render("README.md", folder, profiles=[profile], claims=[])
    verdict = Verdict("tiny", problems=[*NAMES], measured=[(name, name, 1.0, 2.0) for name in NAMES])
    verdict.differences = [Difference(name, name, name, name, 0.0, within=True) for name in NAMES]
    return readme, render("page.html", folder, verdict=verdict, figures=[("run", f"{STEM}.png", f"{STEM}.png")])
