"""Explorers in a notebook: a slider linked to pre-rendered frames in the browser, free choices drawn in the kernel.

The slider and the stack of frames are linked by `jslink`: moving it needs no kernel, so it also works in an executed
notebook that was saved, signed and opened again. A free choice (a class, an image) is drawn in the kernel: the frame
that is shown first, the others after it, one at a time, while the kernel has nothing else to do.
"""

import asyncio
from collections.abc import Iterator

import ipywidgets
from IPython.display import HTML, display

from dqas_lib.explorers import frames
from dqas_lib.explorers.frames import PARTS, Dial, Explorer, Frame, Missing
from dqas_lib.notebook import plots, run_outputs

DEBOUNCE_SECONDS = 0.05  # of a choice that still changes; shorter than a key's repeat
PAUSE_SECONDS = 0.3  # before the frames out of sight are drawn: the next key must not wait for one of them
KEPT_CHOICES = 24  # sets of frames that are kept when another choice is made


class Panel:
    """The widgets of one explorer; `box` is what is displayed."""

    def __init__(self, explorer: Explorer, drawn: tuple[Frame, ...] | None = None) -> None:
        self.explorer, (dial, *choices), drawn = explorer, explorer.dials, drawn or frames.draw_frames(explorer)
        self.picks = frames.starts(explorer)[1:]
        self.frames = {(place, *self.picks): frame for place, frame in enumerate(drawn)}
        self.pictures = [ipywidgets.HTML(frame.html()) for frame in drawn]
        self.stack = ipywidgets.Stack(self.pictures, selected_index=dial.start).add_class("dqas-frames")
        self.slider = _slider(dial, "96%", "640px")
        ipywidgets.jslink((self.slider, "index"), (self.stack, "selected_index"))
        # sliders, not menus: JupyterLab takes the up and down keys for itself, and left and right are left alone
        self.menus = [_slider(choice, "46%", "320px") for choice in choices]
        self.busy = ipywidgets.HTML("")
        self._drawing: asyncio.Task[None] | None = None
        for menu in self.menus:
            menu.observe(self._choose, "index")
        free = ipywidgets.Box([*self.menus, self.busy]).add_class("dqas-choices")
        title = ipywidgets.HTML(str(PARTS.title(explorer, drawn[0])))
        self.box = ipywidgets.VBox([title, self.slider, free, self.stack])
        self.box.add_class("dqas-explorer").add_class(f"dqas-explorer-{explorer.name}")

    def _choose(self, _: object) -> None:
        """Another choice: say so at once, draw when it has settled."""
        self.picks = tuple(menu.index for menu in self.menus)
        self._say("drawing …")
        if self._drawing is not None:
            self._drawing.cancel()
        try:
            self._drawing = asyncio.get_running_loop().create_task(self._draw())
        except RuntimeError:  # no kernel that goes on: draw everything now
            for _ in self._steps():
                pass

    async def _draw(self) -> None:
        for seconds in self._steps():  # in between the kernel answers
            await asyncio.sleep(seconds)

    def _steps(self) -> Iterator[float]:
        """Draw and show the frames of the choice, nearest to the slider first; gives the seconds to wait in between."""
        yield DEBOUNCE_SECONDS
        self._frame(self.slider.index)
        for place, picture in enumerate(self.pictures):  # never a picture of another choice
            frame = self.frames.get((place, *self.picks))
            picture.value = str(PARTS.sentence("Being drawn …")) if frame is None else frame.html()
        pause = PAUSE_SECONDS
        while left := [p for p in range(len(self.pictures)) if (p, *self.picks) not in self.frames]:
            self._say(f"drawing {len(left)} more …")
            yield pause
            place, pause = min(left, key=lambda p: abs(p - self.slider.index)), 0.005
            self.pictures[place].value = self._frame(place).html()
        self.busy.value = ""

    def _frame(self, place: int) -> Frame:
        """The frame of a position, drawn once; the oldest are forgotten."""
        places = (place, *self.picks)
        if places not in self.frames:
            self.frames[places] = frames.draw_frame(self.explorer, places)
            while len(self.frames) > KEPT_CHOICES * len(self.pictures):
                del self.frames[next(iter(self.frames))]
        return self.frames[places]

    def _say(self, text: str) -> None:
        self.busy.value = str(PARTS.busy(text))


def _slider(dial: Dial, width: str, widest: str) -> ipywidgets.SelectionSlider:
    text = {"description": dial.label, "style": {"description_width": "initial"}}
    layout = {"width": width, "min_width": "250px", "max_width": widest}
    return ipywidgets.SelectionSlider(options=dial.texts, index=dial.start, layout=layout, **text)


def explore(explorer: Explorer | Missing) -> None:
    """Show an explorer in a notebook: its panel, and a still picture where widgets cannot be shown.

    In a papermill run the still picture is also shown beside the panel and written to the run's figures, and the frames
    of the slider are saved with the notebook. An explorer that is missing is one sentence.
    """
    if isinstance(explorer, Missing):
        display(HTML(str(PARTS.sentence(explorer.sentence))))
        return
    drawn, in_run = frames.draw_frames(explorer), run_outputs.run_folder() is not None
    still, panel = drawn[explorer.dials[0].start], Panel(explorer, drawn)
    view = {"version_major": 2, "version_minor": 0, "model_id": panel.box.model_id}
    texts = {"text/html": "" if in_run else still.html(), "text/plain": f"{explorer.title}. {still.alt}"}
    display({"application/vnd.jupyter.widget-view+json": view, **texts}, raw=True)
    if in_run and still.png is not None:
        figure = frames.draw_figure(explorer, frames.starts(explorer))[0].figure
        folded = "As a still picture, for where no slider is shown"
        plots.show(figure, f"explorer_{explorer.name}", still.alt, folded=folded)
