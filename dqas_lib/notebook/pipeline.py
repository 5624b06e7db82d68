"""The pipeline in one picture, and in one line that says where in it a notebook stands.

python -m dqas_lib.notebook.pipeline    # in the checkout: the picture of the README, the lines of every notebook
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from dqas_lib.core.files import write_atomically
from dqas_lib.notebook import plots

STAGES = ("patchify", "bins", "class budget", "active rounds", "train and evaluate")  # notebooks 02 to 06
ALT = (
    "The pipeline of DQAS, left to right. One: the patches that matter least are dropped from all images and "
    "reconstructed. Two: in the feature space of the reconstructed images each class is cut into bins, from "
    "representative to atypical. Three: learning curves of the classes divide the first images, more for sensitive "
    "classes. Four: in rounds, a learner is trained on what is selected, the expected error reduction of all others is "
    "estimated, and the best are added. Five: a network is trained on the selection and tested."
)
BLUE, ORANGE, GREEN, PINK = plots.OKABE_ITO[:4]
GRAY = "#9aa0a6"


# the stage that a notebook is about; the others are about all of them
STAGE_OF = {"01": 2, "02": 0, "03": 1, "04": 2, "05": 3, "11": 0}
STAGE_OF |= dict.fromkeys(("06", "07", "08", "09", "12", "13", "14"), 4)


def strip(here: str, notebooks: Sequence[str]) -> str:
    """Two lines of Markdown for the top of a notebook: the pipeline with its own stage in bold, and where to go.

    Args:
        here: Name of the notebook, such as "03_features_and_bins".
        notebooks: Names of all notebooks in reading order.
    """
    own = STAGE_OF.get(here[:2])
    stages = " → ".join(f"**{stage}**" if place == own else stage for place, stage in enumerate(STAGES))
    return f"*You are here:* {stages}\n\n{links(here, notebooks)}"


def links(here: str, notebooks: Sequence[str]) -> str:
    """A line of Markdown: the notebooks before and after this one, and the glossary."""
    place = list(notebooks).index(here)
    ways = {"Before": notebooks[place - 1 : place] if place else [], "Next": notebooks[place + 1 : place + 2]}
    there = [
        f"{way}: [{name[:2]} {name[3:].replace('_', ' ').capitalize()}]({name}.ipynb)"
        for way in ways
        for name in ways[way]
    ]
    return " · ".join([*there, "[Glossary](GLOSSARY.md)"])


def draw_pipeline() -> Figure:
    """The five stages side by side; show it with the alternative text ALT."""
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.9))
    figure.subplots_adjust(left=0.01, right=0.99, top=0.8, bottom=0.3, wspace=0.35)
    words = (
        "drop the patches that\nmatter least in all images,\nreconstruct them",
        "per class, in the features\nof the reconstructed images:\nrepresentative ... atypical",
        "learning curves say which\nclasses are sensitive:\nthey get more images",
        "train on what is selected,\nestimate the error reduction\nof the others, add the best",
        "the same budget and seeds\nfor every method;\nthe test set is read once",
    )
    pictures: tuple[Callable[[Axes], None], ...] = (_patches, _bins, _budget, _rounds, _accuracy)
    for place, (axis, stage, text, draw) in enumerate(zip(axes, STAGES, words, pictures, strict=True)):
        draw(axis)
        axis.grid(False)
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{place + 1}  {stage}", fontsize=10.5, fontweight="bold")
        axis.text(0.5, -0.08, text, transform=axis.transAxes, ha="center", va="top", fontsize=8)
        axis.text(
            0.5, -0.56, f"notebook 0{place + 2}", transform=axis.transAxes, ha="center", fontsize=7.5, color="#555555"
        )
        if place:
            arrow = {"arrowstyle": "-|>", "lw": 1.6, "color": "#444444"}
            axis.annotate("", (-0.06, 0.5), (-0.3, 0.5), xycoords="axes fraction", arrowprops=arrow)
    return figure


def _patches(axis: Axes) -> None:
    y, x = np.mgrid[-1:1:8j, -1:1:8j]
    matters = np.exp(-3 * (x**2 + (y - 0.1) ** 2)) + 0.15 * np.sin(5 * x + y)
    axis.imshow(matters, cmap="Blues", vmin=-0.4, vmax=1.3)
    for row, column in zip(*np.nonzero(matters <= np.quantile(matters, 0.25)), strict=True):
        axis.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="white", edgecolor=GRAY, hatch="////", lw=0)
        )
    for line in np.arange(8) - 0.5:
        axis.axhline(line, color="white", lw=0.8)
        axis.axvline(line, color="white", lw=0.8)


def _bins(axis: Axes) -> None:
    points = np.random.default_rng(3).normal(size=(110, 2)) * (1.0, 0.7)
    far = np.linalg.norm(points, axis=1).argsort().argsort() * 5 // len(points)
    axis.scatter(points[:, 0], points[:, 1], c=far, cmap="cividis_r", s=16, linewidth=0)
    axis.set(xlim=(-3, 3), ylim=(-2.2, 2.2))


def _budget(axis: Axes) -> None:
    counts = np.array([3.4, 5.1, 7.0, 4.2, 8.0, 5.4])
    axis.bar(range(6), counts, color=[ORANGE if count > 6 else BLUE for count in counts])
    axis.axhline(counts.mean(), color="black", linestyle="--", lw=1)
    axis.text(-0.4, counts.mean() + 0.2, "equal", fontsize=7.5)
    axis.set(ylim=(0, 9.5))


def _rounds(axis: Axes) -> None:
    axis.set(xlim=(-1.5, 1.5), ylim=(-1.4, 1.4))
    for start, word in ((100, "train"), (-20, "estimate"), (220, "add")):
        angles = np.radians([start - 12, start - 98])
        ends = [(np.cos(angle), np.sin(angle)) for angle in angles]
        curve = "arc3,rad=-0.3"
        arrow = FancyArrowPatch(*ends, arrowstyle="-|>", connectionstyle=curve, mutation_scale=13, color=GREEN, lw=2)
        axis.add_patch(arrow)
        middle = np.radians(start)
        axis.text(1.05 * np.cos(middle), 1.05 * np.sin(middle), word, ha="center", va="center", fontsize=8.5)


def _accuracy(axis: Axes) -> None:
    ratio = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    axis.errorbar(range(5), 1 - 0.2 * ratio**-0.35, 0.05, color=PINK, marker="o", capsize=3, lw=1.5)
    axis.set(xlim=(-0.6, 4.6), ylim=(0.3, 0.95))
    axis.text(0.98, 0.05, "images kept →", transform=axis.transAxes, ha="right", fontsize=7.5)
    axis.text(0.04, 0.94, "accuracy", transform=axis.transAxes, va="top", fontsize=7.5)


def main(root: Path = Path()) -> None:
    """Write reports/figures/pipeline.svg, and the lines of `strip` and `links` into the notebooks."""
    with plt.rc_context(plots.style()):
        svg, figure = io.BytesIO(), draw_pipeline()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    write_atomically(root / "reports" / "figures" / "pipeline.svg", svg.getvalue())
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    for path in paths:
        notebook, names = json.loads(path.read_text("utf-8")), [other.stem for other in paths]
        texts = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        lines = [_without_ways("".join(cell["source"]).split("\n")) for cell in texts]
        lines[0][1:1] = ["", *strip(path.stem, names).split("\n")]
        lines[-1] += ["", links(path.stem, names)]
        for cell, own in zip(texts, lines, strict=True):
            cell["source"] = "\n".join(own).splitlines(keepends=True)
        write_atomically(path, (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode())


def _without_ways(lines: list[str]) -> list[str]:
    """The lines without those that `main` writes, and without empty ones at the end."""
    kept = [line for line in lines if not line.startswith(("*You are here:*", "Before: [", "Next: ["))]
    while len(kept) > 1 and kept[1:3] == ["", ""]:  # under the title
        del kept[1]
    while kept and not kept[-1]:
        kept.pop()
    return kept


if __name__ == "__main__":
    main()
