"""Figures: one style, color-blind safe, with alternative text that really renders."""

import base64
import html
import io

import matplotlib.pyplot as plt
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.figure import Figure

from dqas_lib.notebook.run_outputs import run_folder

# Okabe and Ito's palette, distinguishable with every common color vision
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


# of the methods that are drawn together as lines; a figure of all of them tells kinds apart, not methods
METHOD_COLORS = {
    "dqas": "#0072B2",
    "dq": "#E69F00",
    "random": "#666666",
    "random, equal": "#56B4E9",
    "herding": "#009E73",
    "dm": "#CC79A7",
    "dream": "#D55E00",
    "full": "#000000",
}


METHOD_LABELS = {
    "full": "All images",
    "dqas": "DQAS",
    "dq": "DQ",
    "dq, gradients": "DQ, gradients",
    "random": "Random",
    "random, equal": "Random, equal classes",
    "herding": "Herding",
    "k-center": "k-Center Greedy",
    "contextual-diversity": "Contextual Diversity",
    "least-confidence": "Least Confidence",
    "entropy": "Entropy",
    "margin": "Margin",
    "forgetting": "Forgetting",
    "grand": "GraNd",
    "el2n": "EL2N",
    "cal": "Cal",
    "deepfool": "DeepFool",
    "craig": "CRAIG",
    "gradmatch": "GradMatch",
    "glister": "GLISTER",
    "facility-location": "Facility Location",
    "graph-cut": "GraphCut",
    "ccs": "CCS",
    "adq": "ADQ",
    "bgfdq": "BGFDQ",
    "bins-random": "Bins + random",
    "dqas-shuffled": "DQAS, counts shuffled",
    "dm": "DM",
    "dream": "DREAM",
    "jpeg": "JPEG, same bytes",
    "webp": "WebP, same bytes",
}


def use_style() -> None:
    """The kit's figure style: white, light grid, Okabe-Ito colors, cividis, text kept as text in SVG."""
    sns.set_theme(context="notebook", style="whitegrid", palette=list(OKABE_ITO))
    plt.rcParams.update(
        {
            "image.cmap": "cividis",
            "figure.dpi": 100,
            "savefig.bbox": "tight",
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "svg.fonttype": "none",
            "svg.hashsalt": "dqas",
            "font.family": "DejaVu Sans",
            "lines.markersize": 5,
        }
    )


def show(figure: Figure, name: str, alt: str, *, folded: str = "") -> None:
    """Show a figure inline as an HTML <figure> with alternative text; in a run, also write it as PNG and SVG.

    name: file name without ending, the same every time; alt: what the picture shows, for those who cannot see it;
    folded: a line under which the figure is folded away.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    folder = run_folder()
    if folder is not None:
        target = folder / "figures"
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{name}.png").write_bytes(buffer.getvalue())
        figure.savefig(target / f"{name}.svg", format="svg", metadata={"Date": None})
        (target / f"{name}.txt").write_text(alt + "\n", encoding="utf-8")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    shown = (
        f'<figure style="margin:0"><img style="max-width:100%" src="data:image/png;base64,{data}" '
        f'alt="{html.escape(alt, quote=True)}"></figure>'
    )
    display(HTML(f"<details><summary>{html.escape(folded)}</summary>{shown}</details>" if folded else shown))
