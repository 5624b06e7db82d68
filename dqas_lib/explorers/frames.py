"""Frames of an explorer: one palette PNG per position of its slider, all of one size, so that nothing jumps.

An explorer is plain Python: it knows its dials and draws a picture of any places of them. Notebooks show its frames
through `widgets.explore`, HTML pages through `pages.write_page`.
"""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from dqas_lib.compressed.codecs import to_sheet
from dqas_lib.core.checks import check_fields
from dqas_lib.core.errors import DataError, DqasError, InputError
from dqas_lib.core.texts import TURNS
from dqas_lib.data.image_set import ImageSet
from dqas_lib.notebook import plots
from dqas_lib.quantize import Selection

DPI = 100
COLORS = 96  # of a frame's palette: color maps and photographs stay recognizable, a frame is a quarter of its size
STYLE = {
    **plots.style(0.75),
    "axes.titley": 1.0,  # where it always is: to look for a free place takes a third of the time of a picture
    "axes.grid.axis": "y",
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
BLUE, ORANGE, GREEN, PINK = plots.OKABE_ITO[:4]
TEMPLATES = Environment(loader=PackageLoader("dqas_lib.explorers", ""), autoescape=True)
PARTS: Any = TEMPLATES.get_template("parts.html").module


@dataclass(frozen=True)
class Dial:
    """What a reader turns: its positions, and the first one shown. Raises InputError when there are none."""

    label: str
    texts: tuple[str, ...]
    start: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.texts or not 0 <= self.start < len(self.texts):
            raise InputError(
                f"dial {self.label!r} needs positions and a start among them; got {self.start!r} of {self.texts!r}"
            )


class Explorer(Protocol):
    """What can be explored; `size` is in inches; alternative texts quote the titles of its panels."""

    name: str
    title: str
    size: tuple[float, float]

    @property
    def questions(self) -> tuple[str, ...]:
        """What the dials answer, for a page that stands alone; notebooks ask and discuss their own."""

    @property
    def dials(self) -> tuple[Dial, ...]:
        """The slider, whose frames are drawn beforehand, then the free choices."""

    def draw(self, figure: Figure, places: tuple[int, ...]) -> str:
        """Draw the picture of a place of each dial; gives a sentence or two with its numbers, or raises DqasError."""


@dataclass(frozen=True)
class Missing:
    """An explorer that cannot be shown, and the sentence that stands in its place."""

    name: str
    title: str
    sentence: str


@dataclass(frozen=True)
class Frame:
    """A picture as it is shown: a palette PNG (None: there is a sentence only), its size in pixels, its texts.

    `alt` says what it shows, for those who cannot see it; `caption` stands under it.
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
        """The frame as an HTML <figure>: a white card, also on a dark page; without a picture its sentence."""
        return str(PARTS.figure(self))


def starts(explorer: Explorer) -> tuple[int, ...]:
    """Where the dials start."""
    return tuple(dial.start for dial in explorer.dials)


def draw_figure(explorer: Explorer, places: tuple[int, ...]) -> tuple[FigureCanvasAgg, str]:
    """The canvas of a drawn picture, and its caption. Raises DqasError when something is missing."""
    with mpl.rc_context(STYLE):
        canvas = FigureCanvasAgg(Figure(figsize=explorer.size, dpi=DPI))
        canvas.figure.subplots_adjust(left=0.07, right=0.985, top=0.93, bottom=0.11)
        caption = TURNS.sub("\u25a1", explorer.draw(canvas.figure, places))
        plots.plain_ticks(canvas.figure)
        canvas.draw()
        return canvas, caption


def draw_frame(explorer: Explorer, places: tuple[int, ...]) -> Frame:
    """Draw the picture of a place of each dial; a DqasError becomes a frame that says in a sentence what is missing.

    Raises:
        InputError: For places that are none.
    """
    dials = explorer.dials
    if len(places) != len(dials) or any(not 0 <= p < len(d.texts) for p, d in zip(places, dials, strict=True)):
        raise InputError(f"explorer {explorer.name!r} has no place {places!r}")
    width, height = (round(DPI * inches) for inches in explorer.size)
    try:
        canvas, caption = draw_figure(explorer, places)
    except DqasError as error:
        return Frame(None, width, height, str(error), str(error))
    png = io.BytesIO()
    _few_colors(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])).save(png, "PNG", compress_level=9)
    where = ", ".join(f"{dial.label} {dial.texts[place]}" for dial, place in zip(dials, places, strict=True))
    panels = "; ".join(" ".join([a.get_title("left"), *filter(None, [a.get_xlabel()])]) for a in canvas.figure.axes)
    return Frame(png.getvalue(), width, height, f"Panels for {where}: {panels}. {caption}", caption)


def _few_colors(picture: Image.Image) -> Image.Image:
    """The picture in COLORS colors, those of the methods among them, which thin lines beside photographs would lose."""
    own = [round(255 * level) for color in plots.OKABE_ITO for level in to_rgb(color)]
    rest = picture.quantize(COLORS - len(plots.OKABE_ITO)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette(own + rest[: 3 * COLORS - len(own)])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def draw_frames(explorer: Explorer, picks: tuple[int, ...] | None = None) -> tuple[Frame, ...]:
    """The frames of all positions of the slider; picks: places of the free choices (None: where they start)."""
    picks = starts(explorer)[1:] if picks is None else picks
    return tuple(draw_frame(explorer, (position, *picks)) for position in range(len(explorer.dials[0].texts)))


Made = TypeVar("Made", bound=Explorer)


def or_sentence(explorer: type[Made], make: Callable[[], Made]) -> Made | Missing:
    """What `make` gives; when it raises a DqasError, one sentence in its place."""
    try:
        return make()
    except DqasError as error:
        return Missing(explorer.name, explorer.title, f"{' '.join(str(error).split()).removesuffix('.')}.")


def check_pool(images: ImageSet, selection: Selection) -> None:
    """DataError unless the selection was made from these images."""
    if selection.settings.get("images", "") != images.fingerprint():
        raise DataError(
            f"This selection was made from other images than these {len(images):,} of {images.name!r}: "
            "select again, or give the images it was made from."
        )


def show_images(axes: Axes, images: ImageSet, chosen: np.ndarray, columns: int, rows: int, title: str) -> None:
    """Images on a sheet, row by row; evenly through the chosen positions where they are too many."""
    axes.set(title=title, anchor="NW")
    axes.set_axis_off()
    if len(chosen) > columns * rows:
        chosen = chosen[np.linspace(0, len(chosen) - 1, columns * rows).round().astype(int)]
    gap = max(1, images.size // 10)
    spare, between = (0, columns * rows - len(chosen)), (0, gap)
    tiles = np.pad(images.images[chosen], (spare, between, between, (0, 0)), constant_values=255)
    sheet = to_sheet(tiles, columns)[:-gap, :-gap]
    axes.imshow(sheet, interpolation="nearest", extent=(0, columns, 0, rows))
    if not len(chosen):
        axes.text(0, rows, "none", va="top", color="#666666")


def class_ticks(axes: Axes, names: Sequence[str]) -> None:
    """Class names under bars: upright where they are short, else turned; none where there are more than forty."""
    texts = [name if len(name) <= 10 else f"{name[:9]}…" for name in names] if len(names) <= 40 else []
    axes.set_xticks(range(len(texts)), texts)
    axes.tick_params(axis="x", length=0, pad=1)
    if max(map(len, texts), default=0) > 2:
        for label in axes.get_xticklabels():
            label.set(rotation=55, ha="right", rotation_mode="anchor", fontsize=7)


def percent(ratio: float) -> str:
    """A ratio in per cent: 0.05 -> "5 %"."""
    return f"{100 * ratio:.3g} %"
