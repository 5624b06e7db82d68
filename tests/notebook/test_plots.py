from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from dqas_lib.experiments.makers import MAKERS
from dqas_lib.experiments.survey import all_methods
from dqas_lib.notebook import plots

matplotlib.use("Agg")


class Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.alts, self.sources, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.alts.append(dict(attributes)["alt"])
            self.sources.append(dict(attributes)["src"])


def test_a_figure_is_shown_with_its_alternative_text_and_written_in_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    plots.use_style()
    figure, axis = plt.subplots()
    axis.plot([0, 1], [0, 1])
    alt = 'A line that rises, "quoted" & <marked>.'
    shown = []
    monkeypatch.setattr(plots, "display", shown.append)
    plots.show(figure, "line", alt)
    page = Images()
    page.feed(shown[0].data)
    assert page.tags[0] == "figure"
    assert page.alts == [alt]
    assert page.sources[0].startswith("data:image/png;base64,")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"line.png", "line.svg", "line.txt"}
    assert (tmp_path / "figures" / "line.txt").read_text() == alt + "\n"
    assert not plt.fignum_exists(figure.number)


def test_rows_of_pictures_keep_their_labels_titles_and_order():
    with plt.rc_context(plots.style()):
        rows = {"image": [np.full((2, 2, 3), c, dtype=np.uint8) for c in (0, 90, 180)], "map": [np.eye(2)]}
        figure = plots.picture_rows(rows, [["a", "$b$", "c"]], side=1)
    axes = np.reshape(figure.axes, (2, 3))
    assert figure.get_size_inches().tolist() == [3, 2]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["image", "map"]
    assert [axis.get_title() for axis in axes[0]] == ["a", "$b$", "c"]
    shown = [[axis.images[0].get_array().max() if axis.images else None for axis in line] for line in axes]
    assert shown == [[0, 90, 180], [1, None, None]]
    plt.close(figure)


def test_the_same_figure_gives_the_same_bytes(tmp_path, monkeypatch):
    plots.use_style()
    for name in ("one", "two"):
        monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path / name))
        figure, axis = plt.subplots()
        axis.plot([0, 1], [1, 0])
        plots.show(figure, "line", "a line")
    for ending in ("png", "svg"):
        first, second = (tmp_path / name / "figures" / f"line.{ending}" for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_ticks_of_logarithmic_axes_are_numbers_and_names_no_formulas(tmp_path, monkeypatch):
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    with plt.rc_context(plots.style()):
        figure, (left, right) = plt.subplots(1, 2)
        left.plot([1, 1000], [0.01, 10])
        left.set(xscale="log", yscale="log", title="class $x_1$")
        right.plot([2, 3], [0, 500])
        right.set(xscale="log", yscale="symlog")
        plots.show(figure, "ticks", "Two panels with logarithmic axes.")
    svg = (tmp_path / "figures" / "ticks.svg").read_text()
    assert "mathdefault" not in svg
    for text in ("0.01", "100", "class $x_1$"):
        assert f">{text}</text>" in svg


def test_method_colors_are_distinct():
    colors = list(plots.METHOD_COLORS.values())
    assert len(set(colors)) == len(colors)
    assert set(plots.METHOD_COLORS) <= set(plots.METHOD_LABELS)


def test_every_method_has_a_label_of_its_own():
    shown = {*all_methods(), *MAKERS, "random, equal"}  # the last: notebook 06 on imbalanced data
    assert set(plots.METHOD_LABELS) == shown
    assert len(set(plots.METHOD_LABELS.values())) == len(shown)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_a_title_says_when_seeds_are_too_few_for_intervals():
    assert plots.seeds_of(1) == "1 seed, too few for intervals"
    assert plots.seeds_of(2) == "2 seeds, too few for intervals"
    assert plots.seeds_of(3) == "3 seeds, 95 % intervals"


def test_dots_and_curves_show_every_value_in_percent():
    summary = pd.DataFrame({"method": ["dq", "random"] * 2, "ratio": [0.1, 0.1, 0.05, 0.05]})
    summary = summary.assign(mean=[0.8, 0.7, 0.6, 0.5], half=[0.01, 0.02, float("nan"), 0.03])
    figure, (several, single) = plt.subplots(1, 2)
    plots.curves(several, summary, ["random", "dq"], 0.9)
    assert [text.get_text() for text in several.get_xticklabels()] == ["5", "10"]
    drawn = {c.get_label(): c.lines[0].get_xydata() for c in several.containers}
    assert drawn["DQ"][:, 1].tolist() == pytest.approx([60, 80])
    assert drawn["Random"][0, 0] < 5 < drawn["DQ"][0, 0]  # side by side
    assert [text.get_text() for text in several.get_legend().get_texts()] == ["All images", "Random", "DQ"]
    plots.curves(single, summary[summary["ratio"] == 0.1], ["random", "dq"], 0.9)
    assert [text.get_text() for text in single.get_yticklabels()] == ["Random", "DQ"]
    points = [container.lines[0] for container in single.containers]
    assert [float(point.get_xdata()[0]) for point in points] == pytest.approx([70, 80])
    assert single.yaxis_inverted()  # the first on top
    plots.dots(several, [0.1], [0.0], ["x"], ["red"], filled=[False], markers=["s"])
    last = several.containers[-1].lines[0]
    assert (last.get_marker(), last.get_markerfacecolor()) == ("s", "white")
    plt.close(figure)
