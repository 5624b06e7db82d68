"""Explorers in a notebook: a slider linked to pre-rendered frames in the browser, free choices drawn in the kernel.

The slider and the stack of frames are linked by `jslink`: moving it needs no kernel, so it also works in an executed
notebook that was saved, signed and opened again. A free choice (a class, an image) is drawn in the kernel: the frame
that is shown first, the others after it, one at a time, while the kernel has nothing else to do.
"""

import asyncio
import html
from collections import OrderedDict

import ipywidgets
from IPython.display import HTML, display

from dqas_lib.explorers.frames import (
    Explorer,
    Frame,
    Missing,
    Question,
    draw_frame,
    draw_frames,
    painted,
    sentence_html,
    starts,
)
from dqas_lib.notebook import plots

DEBOUNCE_SECONDS = 0.05  # of a choice that still changes; shorter than a key's repeat


PAUSE_SECONDS = 0.3  # before the frames out of sight are drawn: the next key must not wait for one of them


KEPT_CHOICES = 24  # sets of frames that are kept when another choice is made


class Session:
    """What is shown at the moment, without any widget: the position, the picks, and the frames drawn so far.

    Frames of a choice that was left stay in memory (the last KEPT_CHOICES), so that coming back costs nothing.
    """

    def __init__(self, explorer: Explorer, frames: tuple[Frame, ...]) -> None:
        self.explorer, self.position, self.picks = explorer, explorer.dial.start, starts(explorer)
        self._drawn: OrderedDict[tuple[int, ...], dict[int, Frame]] = OrderedDict()
        self._drawn[self.picks] = dict(enumerate(frames))

    @property
    def drawn(self) -> dict[int, Frame]:
        """Position -> frame, for the picks of the moment."""
        found = self._drawn.setdefault(self.picks, {})
        self._drawn.move_to_end(self.picks)
        while len(self._drawn) > KEPT_CHOICES:
            self._drawn.popitem(last=False)
        return found

    def waiting(self) -> list[int]:
        """Positions still to be drawn, the nearest to the one shown first."""
        there = range(len(self.explorer.dial.texts))
        return sorted((p for p in there if p not in self.drawn), key=lambda p: (abs(p - self.position), p))

    def draw_next(self) -> int | None:
        """Draw the most urgent frame and give its position; None when all are there."""
        waiting = self.waiting()
        if not waiting:
            return None
        self.drawn[waiting[0]] = draw_frame(self.explorer, waiting[0], self.picks)
        return waiting[0]


class Panel:
    """The widgets of one explorer; `box` is what is displayed."""

    def __init__(self, explorer: Explorer, frames: tuple[Frame, ...] | None = None) -> None:
        self.session = Session(explorer, draw_frames(explorer) if frames is None else frames)
        drawn = self.session.drawn
        dial = explorer.dial
        first = drawn[dial.start]
        self.pictures = [ipywidgets.HTML(drawn[p].html()) for p in range(len(dial.texts))]
        self.stack = ipywidgets.Stack(
            self.pictures, selected_index=dial.start, layout={"width": "100%", "max_width": f"{first.width}px"}
        )
        self.stack.add_class("dqas-frames")
        wide = {"description_width": "initial"}
        self.slider = ipywidgets.SelectionSlider(
            options=dial.texts,
            index=dial.start,
            description=dial.label,
            style=wide,
            layout={"width": "96%", "max_width": "640px"},
        )
        ipywidgets.jslink((self.slider, "index"), (self.stack, "selected_index"))
        # sliders, not menus: JupyterLab takes the up and down keys for itself, and left and right are left alone
        self.menus = [
            ipywidgets.SelectionSlider(
                options=choice.texts,
                index=choice.start,
                description=choice.label,
                style=wide,
                layout={"width": "46%", "min_width": "250px", "max_width": "320px"},
            )
            for choice in explorer.choices
        ]
        self.busy = ipywidgets.HTML("", layout={"min_width": "9em"})
        self._timer: asyncio.TimerHandle | None = None
        for menu in self.menus:
            menu.observe(self._choose, "index")
        self.slider.observe(self._move, "index")
        free = ipywidgets.Box(
            [*self.menus, self.busy], layout={"flex_flow": "row wrap", "align_items": "center", "width": "100%"}
        )
        title = ipywidgets.HTML(_style(explorer.name, first) + f"<b>{html.escape(explorer.title)}</b>")
        self.box = ipywidgets.VBox([title, self.slider, free, self.stack], layout={"width": "100%"})
        self.box.add_class("dqas-explorer")
        self.box.add_class(f"dqas-explorer-{explorer.name}")

    def _move(self, change) -> None:
        self.session.position = change["new"]

    def _choose(self, change) -> None:
        """Another choice: say so at once, draw when it has settled."""
        self.session.picks = tuple(menu.index for menu in self.menus)
        self.busy.value = _busy("drawing …")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel that goes on: draw everything now
            self._refresh()
            while self._draw():
                pass
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(DEBOUNCE_SECONDS, self._start)

    def _start(self) -> None:
        if self.session.position not in self.session.drawn:
            self.session.draw_next()
        self._refresh()
        left = len(self.session.waiting())
        self.busy.value = _busy(f"drawing {left} more …") if left else ""
        self._timer = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        """Draw another frame as soon as the kernel has answered what came in between."""
        if self._draw():
            self._timer = asyncio.get_running_loop().call_later(0.005, self._go_on)

    def _draw(self) -> bool:
        """Draw and show one frame; False when there was none left."""
        place = self.session.draw_next()
        if place is not None:
            self.pictures[place].value = self.session.drawn[place].html()
        left = len(self.session.waiting())
        self.busy.value = _busy(f"drawing {left} more …") if left else ""
        return left > 0

    def _refresh(self) -> None:
        """Show what is drawn, and in place of the rest that it is on its way: never a picture of another choice."""
        drawn = self.session.drawn
        order = sorted(range(len(self.pictures)), key=lambda p: abs(p - self.session.position))
        for place in order:
            frame = drawn.get(place)
            self.pictures[place].value = sentence_html("Being drawn …") if frame is None else frame.html()


def _style(name: str, frame: Frame) -> str:
    """The frames' place keeps its shape while one replaces another; no signs of missing kernels among the pictures.

    The shape is this explorer's alone: a notebook may hold several. The caption stands in the padding: three lines and
    a half, more where the place is narrow.
    """
    return (
        "<style>"
        f".dqas-explorer-{name} .dqas-frames {{aspect-ratio:{frame.width}/{frame.height};overflow:visible;"
        "box-sizing:content-box;padding:0 0 calc(5em + max(0px, (560px - 100%) / 4))}"
        ".dqas-explorer .jupyter-widgets-disconnected::before {display:none !important}"
        ".dqas-explorer figcaption {line-height:1.4}"
        "</style>"
    )


def _busy(text: str) -> str:
    return f'<span role="status" style="opacity:.75">⏳ {html.escape(text)}</span>'


def explore(explorer: Explorer | Missing) -> None:
    """Show an explorer in a notebook: its panel, and a still picture where widgets cannot be shown.

    In a papermill run the still picture is also shown beside the panel and written to the run's figures, and the frames
    of the slider are saved with the notebook. An explorer that is missing is one sentence.
    """
    if isinstance(explorer, Missing):
        display(HTML(sentence_html(explorer.sentence)))
        return
    frames = draw_frames(explorer)
    panel = Panel(explorer, frames)
    still = frames[explorer.dial.start]
    display(
        {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": panel.box.model_id,
            },
            "text/html": still.html() if plots.run_folder() is None else "",
            "text/plain": f"{explorer.title}. {still.alt}",
        },
        raw=True,
    )
    if plots.run_folder() is not None and still.png is not None:
        figure, _ = painted(explorer, explorer.dial.start, starts(explorer))
        name = f"explorer_{explorer.name}"
        plots.show(figure, name, still.alt, folded="As a still picture, for where no slider is shown")


def ask(explorer: Explorer | Missing) -> None:
    """The explorer's questions, numbered, their answers folded; nothing when it is missing."""
    if not isinstance(explorer, Missing):
        display(HTML(questions_html(explorer.questions())))


def questions_html(questions: tuple[Question, ...]) -> str:
    """Numbered questions with folded answers."""
    items = "".join(
        f"<li>{html.escape(q.text)}<details><summary>Answer</summary><p>{html.escape(q.answer)}</p></details></li>"
        for q in questions
    )
    return f"<ol>{items}</ol>"
