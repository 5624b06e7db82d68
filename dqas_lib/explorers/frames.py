"""Frames of an explorer: one palette PNG for every position of its slider, all of one size, so that nothing jumps.

An explorer is plain Python: it knows its positions and draws one of them on a figure. Notebooks show its frames through
`widgets.explore`, HTML pages through `pages.write_page`.
"""

import base64
import html
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import DataError, DqasError, InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.notebook.plots import METHOD_LABELS, OKABE_ITO
from dqas_lib.patches.autoencoder import Autoencoder
from dqas_lib.quantize import Selection

DPI = 100


COLORS = 96  # of a frame's palette: color maps and photographs stay recognisable, a frame is a quarter of its size


STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c8c8c",
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.color": "#e2e2e2",
    "image.cmap": "cividis",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@dataclass(frozen=True)
class Dial:
    """What a reader turns: `texts` are its positions, in order; `start` the first one shown.

    Raises InputError for a dial without positions or a start that is none of them.
    """

    label: str
    texts: tuple[str, ...]
    start: int = 0

    def __post_init__(self) -> None:
        if not self.texts or not 0 <= self.start < len(self.texts):
            raise InputError(f"dial {self.label!r} needs positions and a start among them; got {self.start!r} of none")


@dataclass(frozen=True)
class Question:
    """A question about what the explorer shows, and its answer, made from the numbers at hand."""

    text: str
    answer: str


class Explorer(Protocol):
    """What can be explored: `dial` is turned by the slider (its frames are drawn beforehand), `choices` are free."""

    name: str
    title: str
    panels: str
    dial: Dial
    choices: tuple[Dial, ...]
    size: tuple[float, float]

    def draw(self, figure: Figure, position: int, picks: tuple[int, ...]) -> str:
        """Draw a position on an empty figure of `size` inches; gives one or two sentences with its numbers.

        Raises DqasError when what is to be drawn is missing or does not fit.
        """
        ...

    def questions(self) -> tuple[Question, ...]:
        """Two to four questions."""
        ...


@dataclass(frozen=True)
class Missing:
    """An explorer that cannot be shown, and the sentence that stands in its place."""

    name: str
    title: str
    sentence: str


@dataclass(frozen=True)
class Frame:
    """A position as it is shown: a palette PNG (None: there is a sentence only), its size in pixels, its texts.

    alt: what the picture shows, for those who cannot see it; caption: the sentence under it.
    """

    png: bytes | None
    width: int
    height: int
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """The picture as a data URL; "" when there is none."""
        return "" if self.png is None else f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    def html(self) -> str:
        """The frame as an HTML <figure>: a white card, also on a dark page."""
        caption = f'<figcaption style="padding:4px 0">{html.escape(unbroken(self.caption))}</figcaption>'
        if self.png is None:
            return sentence_html(self.caption)
        return (
            f'<figure style="margin:0;max-width:{self.width}px"><img width="{self.width}" height="{self.height}" '
            f'style="display:block;max-width:100%;height:auto;border-radius:4px" src="{self.source}" '
            f'alt="{html.escape(self.alt, quote=True)}">{caption}</figure>'
        )


def unbroken(text: str) -> str:
    """The text with percent signs that stay with their numbers when a line is broken."""
    return text.replace(" %", "\u00a0%")


def sentence_html(sentence: str) -> str:
    """One sentence in place of a picture."""
    return (
        f'<p role="status" style="margin:0;max-width:44em;padding:10px 12px;border-left:4px solid #E69F00">'
        f"{html.escape(sentence)}</p>"
    )


def draw_frame(explorer: Explorer, position: int, picks: tuple[int, ...] | None = None) -> Frame:
    """Draw one position; a DqasError becomes a frame that says in a sentence what is missing.

    picks: a position of each of the `choices` (None: where they start). Raises InputError for positions that are none.
    """
    picks = starts(explorer) if picks is None else picks
    dials = (explorer.dial, *explorer.choices)
    if len(picks) != len(explorer.choices) or any(
        not 0 <= place < len(dial.texts) for place, dial in zip((position, *picks), dials, strict=True)
    ):
        raise InputError(f"explorer {explorer.name!r} has no position {position!r} with choices {picks!r}")
    width, height = (round(DPI * inches) for inches in explorer.size)
    try:
        figure, caption = painted(explorer, position, picks)
    except DqasError as error:
        text = str(error)
        return Frame(None, width, height, text, text)
    FigureCanvasAgg(figure).draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    palette = pixels.quantize(COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    palette.save(buffer, "PNG", compress_level=9)
    where = ", ".join(f"{d.label} {d.texts[p]}" for d, p in zip(dials, (position, *picks), strict=True))
    return Frame(buffer.getvalue(), width, height, f"{explorer.panels} {where}. {caption}", caption)


def painted(explorer: Explorer, position: int, picks: tuple[int, ...]) -> tuple[Figure, str]:
    """The figure of one position, and its caption. Raises DqasError when something is missing."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=explorer.size, dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        return figure, explorer.draw(figure, position, picks)


def starts(explorer: Explorer) -> tuple[int, ...]:
    """Where the free choices start."""
    return tuple(dial.start for dial in explorer.choices)


def draw_frames(explorer: Explorer, picks: tuple[int, ...] | None = None) -> tuple[Frame, ...]:
    """The frames of all positions of the slider."""
    return tuple(draw_frame(explorer, position, picks) for position in range(len(explorer.dial.texts)))


def mosaic(images: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The first columns x rows of (M, H, W, 3) uint8 images on one white sheet, a pixel or more between them."""
    size = images.shape[1] if len(images) else 8
    gap = max(1, size // 10)
    sheet = np.full((rows * (size + gap) - gap, columns * (size + gap) - gap, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images[: columns * rows]):
        y, x = (i // columns) * (size + gap), (i % columns) * (size + gap)
        sheet[y : y + size, x : x + size] = image
    return sheet


def show_images(axes: Axes, images: np.ndarray, columns: int, rows: int, title: str) -> None:
    """A mosaic with a title and no axis; an empty one says that there is none."""
    axes.set_title(title)
    axes.set_axis_off()
    axes.imshow(mosaic(images, columns, rows), interpolation="nearest", aspect="equal", extent=(0, columns, 0, rows))
    axes.set_anchor("NW")
    if not len(images):
        axes.text(0, rows, "none", va="top", color="#666666")


def class_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Class names under bars: upright where they are short, else turned; none where there are more than forty."""
    if len(names) > 40:
        axes.set_xticks([])
        return
    short = max(len(name) for name in names) <= 2
    texts = [name if len(name) <= 10 else f"{name[:9]}…" for name in names]
    axes.set_xticks(range(len(names)), texts, rotation=0 if short else 55, ha="center" if short else "right")
    if not short:
        axes.tick_params(axis="x", labelsize=7, length=0, pad=1)
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")


def in_bytes(n: float) -> str:
    """A number of bytes as people read it: 840 B, 9.1 kB, 2.3 MB (powers of 1,000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError


BLUE, ORANGE, GREEN, PINK = OKABE_ITO[:4]


GRAY = "#8c8c8c"


DOTS = 1500  # of an embedding: more only make it slower


BARS = 24  # classes of a bar chart with four bars a class


def label_of(method: str) -> str:
    """A method's name as it is written in figures."""
    return METHOD_LABELS.get(method, method)


def percent(ratio: float) -> str:
    """A ratio in per cent: 0.05 -> "5 %"."""
    return f"{100 * ratio:.3g} %"


def or_sentence(name: str, title: str, make: Callable[[], Explorer]) -> Explorer | Missing:
    """What `make` gives; when it raises a DqasError, one sentence in its place."""
    try:
        return make()
    except DqasError as error:
        text = " ".join(str(error).split())
        return Missing(name, title, text if text.endswith(".") else f"{text}.")


def stored_bytes(images: ImageSet, store: Store | None = None) -> int:
    """Bytes on disk of these images as a compressed set, measured once and then read from the store."""

    def measure() -> dict[str, np.ndarray]:
        return {"bytes": np.int64(sum(_sizes(images, None, None).values()))}

    if store is None:
        return int(measure()["bytes"])
    return int(store.load_or_compute("bytes", {"images": images.fingerprint()}, measure)["bytes"])


def _sizes(images: ImageSet, kept: np.ndarray | None, coder: Autoencoder | None) -> dict[str, int]:
    """Bytes of every file of a compressed set."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_compressed(Path(folder) / "set", images, kept=kept, autoencoder=coder)
        return {file.name: file.stat().st_size for file in path.iterdir()}


def _check_pool(images: ImageSet, selection: Selection) -> None:
    """DataError unless the selection was made from these images."""
    if selection.settings.get("images", "") != images.fingerprint():
        raise DataError(
            f"This selection was made from other images than these {len(images):,} of {images.name!r}: "
            "select again, or "
            "give the images it was made from."
        )


# MERGED DOC: """Explorers: what DQAS does when a ratio, a drop share, a budget or a round is moved. Plain Python, no widgets.
#
# Each is made from results that are there already: tidy rows, selections, masks, fitted curves. The functions at the end
# collect them from the store; what cannot be shown becomes a `Missing` with one sentence that says what to run.
# """
