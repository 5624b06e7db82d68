"""Figures: one style, color-blind safe, with alternative text that really renders."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, repeat
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterMathtext, NullFormatter
from pandas.io.formats.style import Styler
from PIL import Image

from dqas_lib.core.files import write_atomically
from dqas_lib.core.texts import TURNS, plain
from dqas_lib.notebook.run_outputs import run_folder

DPI, SHOWN_DPI = 160, 100  # of the pixels in a PNG, and of the place it takes on a page

# Okabe and Ito's palette, distinguishable with every common color vision
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")

# fmt: off
# of the methods that are drawn together as lines; a figure of all of them tells kinds apart, not methods
METHOD_COLORS = {
    "dqas": "#0072B2", "dq": "#E69F00", "random": "#666666", "random, equal": "#56B4E9", "herding": "#009E73",
    "dqas-plus": "#D55E00", "dm": "#CC79A7", "dream": "#882255", "full": "#000000",
}
METHOD_LABELS = {
    "full": "All images", "random": "Random", "random, equal": "Random, equal classes", "dqas": "DQAS", "dq": "DQ",
    "dqas-plus": "DQAS-plus",
    "dq, gradients": "DQ, gradients", "adq": "ADQ", "bgfdq": "BGFDQ", "bins-random": "Bins + random",
    "dqas-shuffled": "DQAS, counts shuffled", "herding": "Herding", "k-center": "k-Center Greedy",
    "contextual-diversity": "Contextual Diversity", "least-confidence": "Least Confidence", "entropy": "Entropy",
    "margin": "Margin", "cal": "Cal", "deepfool": "DeepFool", "forgetting": "Forgetting", "grand": "GraNd",
    "el2n": "EL2N", "ccs": "CCS", "craig": "CRAIG", "gradmatch": "GradMatch", "glister": "GLISTER",
    "facility-location": "Facility Location", "graph-cut": "GraphCut", "dm": "DM", "dream": "DREAM",
    "jpeg": "JPEG, same bytes", "webp": "WebP, same bytes",
}
# fmt: on


def style(scale: float = 1.0) -> dict[Any, Any]:
    """The kit's style as rcParams, fonts scaled: white, light grid, color-blind safe, text kept as text in SVG."""
    colors = plt.cycler(color=OKABE_ITO)  # type: ignore[attr-defined]
    sizes = {"axes.titlesize": 11 * scale, "axes.labelsize": 10 * scale}
    shown = {"figure.dpi": SHOWN_DPI, "font.family": "DejaVu Sans", "image.cmap": "cividis", "lines.markersize": 5}
    shown["text.parse_math"] = False  # a class may be called "$x$"; see `plain_ticks`
    saved = {"savefig.bbox": "tight", "svg.fonttype": "none", "svg.hashsalt": "dqas"}
    seaborn = {**sns.plotting_context("notebook", scale), **sns.axes_style("whitegrid")}
    return {**seaborn, "axes.prop_cycle": colors, **sizes, **shown, **saved}


def use_style() -> None:
    """Draw what follows in the kit's style; two dollar signs in a table of pandas are no formula."""
    plt.rcParams.update(style())
    pd.set_option("display.html.use_mathjax", False)


def label_of(method: str) -> str:
    """A method's name as figures write it; a name from outside stays as it is."""
    return METHOD_LABELS.get(method, method)


def table(rows: pd.DataFrame) -> Styler:
    """The rows as a table without index, whose texts are only text: files and classes may have any name."""
    texts = rows.rename(columns=plain).map(lambda value: plain(value, 300) if isinstance(value, str) else value)
    return texts.style.hide(axis="index")


def seeds_of(n: int) -> str:
    """What a title says of n seeds: below three there are dots, and no interval."""
    return f"{n} seeds, 95 % intervals" if n >= 3 else f"{n} seed{'s' * (n > 1)}, too few for intervals"


def colors_of(methods: Iterable[str]) -> dict[str, str]:
    """A color per method: its own of METHOD_COLORS, for others those that the given methods leave free, in order."""
    methods = list(methods)
    own = {method: METHOD_COLORS[method] for method in methods if method in METHOD_COLORS}
    free = cycle([color for color in OKABE_ITO if color not in own.values()] or OKABE_ITO)
    return {method: own[method] if method in own else next(free) for method in methods}


def picture_rows(
    rows: Mapping[str, Sequence[Any]], titles: Sequence[Sequence[str]] = (), side: float = 1.35, cmap: str | None = None
) -> Figure:
    """Rows of small pictures without axes, the label of its row before each; a shorter row ends earlier.

    rows: label -> (h, w, 3) images or (h, w) maps; titles: of the pictures of the first row, of the second ...;
    side: of a picture, in inches; cmap: of maps.
    """
    columns = max(map(len, rows.values()))
    figure, axes = plt.subplots(len(rows), columns, figsize=(side * columns, side * len(rows)), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture, cmap=cmap)
        for axis in line:
            axis.set(xticks=[], yticks=[], frame_on=False)
            axis.grid(False)
        line[0].set_ylabel(label, fontsize=9)
    for line, texts in zip(axes, titles, strict=False):
        for axis, text in zip(line, texts, strict=False):
            axis.set_title(text, fontsize=9)
    figure.tight_layout(pad=0.4)
    return figure


def plain_ticks(figure: Figure) -> None:
    """Write the ticks of logarithmic axes as numbers: as formulas, their default, they would show as source text."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter("{x:g}")
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(NullFormatter())


def dots(
    axis: Axes,
    means: Iterable[float],
    halves: Iterable[float],
    labels: Iterable[str],
    colors: Iterable[str],
    *,
    filled: Iterable[bool] = repeat(True),
    markers: Iterable[str] = repeat("o"),
) -> None:
    """A dot per row with its interval, the first on top; fractions are drawn in percent. filled: False: hollow."""
    labels = list(labels)
    for place, (mean, half, color, full, marker) in enumerate(
        zip(means, halves, colors, filled, markers, strict=False)
    ):
        look: dict[str, Any] = {"fmt": marker, "color": color, "markerfacecolor": color if full else "white"}
        axis.errorbar(100 * mean, place, xerr=100 * half, capsize=3, **look)
    axis.set_yticks(range(len(labels)), labels=labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)


def curves(axis: Axes, summary: pd.DataFrame, methods: Iterable[str], ceiling: float | None = None) -> None:
    """Mean accuracy and interval in percent against the ratio, a line per method; for one ratio a dot per method.

    Args:
        summary: Rows with method, ratio, mean and half, in fractions.
        methods: In the order in which they are drawn, intervals side by side.
        ceiling: Accuracy with all images, a dashed line.
    """
    colors = colors_of(methods := list(methods))
    lines = [summary[summary["method"] == name].sort_values("ratio") for name in methods]
    ratios = sorted(set().union(*(line["ratio"] for line in lines)))
    if single := len(ratios) == 1:
        means, halves = ([line[value].item() for line in lines] for value in ("mean", "half"))
        dots(axis, means, halves, map(label_of, methods), colors.values())
    else:
        for place, (name, line) in enumerate(zip(methods, lines, strict=True)):
            beside = 1.02 ** (place - (len(methods) - 1) / 2)
            look: dict[str, Any] = {"marker": "o", "capsize": 3, "color": colors[name], "label": label_of(name)}
            axis.errorbar(100 * beside * line["ratio"], 100 * line["mean"], yerr=100 * line["half"], **look)
        axis.set_xscale("log")
        axis.set_xticks([100 * ratio for ratio in ratios], labels=[f"{100 * ratio:g}" for ratio in ratios])
        axis.minorticks_off()
    if ceiling is not None:
        draw = axis.axvline if single else axis.axhline
        draw(100 * ceiling, color="black", linestyle="--", linewidth=1, label=label_of("full"))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))


def show(figure: Figure, name: str, alt: str, *, folded: str = "") -> None:
    """Show a figure inline as an HTML <figure>, then close it; in a run, also write it as PNG and SVG.

    name: file name without ending. alt: what the picture shows, for those who cannot see it. folded: a line under which
    the figure is folded away.
    """
    png, svg = io.BytesIO(), io.BytesIO()
    plain_ticks(figure)
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    if (folder := run_folder()) is not None:
        figure.savefig(svg, format="svg", metadata={"Date": None})
        drawn = TURNS.sub("\u25a1", svg.getvalue().decode()).encode()
        for ending, content in ("png", png.getvalue()), ("svg", drawn), ("txt", f"{alt}\n".encode()):
            write_atomically(folder / "figures" / f"{name}.{ending}", content)
    plt.close(figure)
    width = round(Image.open(png).width * SHOWN_DPI / DPI)
    shown = (
        f'<figure style="margin:0"><img width="{width}" style="max-width:100%;height:auto" '
        f'src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}" '
        f'alt="{html.escape(alt, quote=True)}"></figure>'
    )
    display(HTML(f"<details><summary>{html.escape(folded)}</summary>{shown}</details>" if folded else shown))
