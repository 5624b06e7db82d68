"""The rounds explorer: a DQAS selection, step by step."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers import frames
from dqas_lib.quantize import Selection


@dataclass(frozen=True, eq=False)
class RoundsExplorer:
    """Counts, scores of the candidates, images added, round by round."""

    images: ImageSet  # the pool selected from
    round: np.ndarray  # (N,) of each image, -1 when it was not selected
    counts: np.ndarray  # (R + 1, C) after each round
    scores: np.ndarray  # (R, N) of the candidates, else NaN
    bin: np.ndarray | None = None  # (N,) of each image
    name = "rounds"
    size = (7.4, 4.4)
    title = "DQAS, round by round"
    questions = (
        "Which class's fraction grows most through the rounds, which shrinks most?",
        "Does the mean score of the candidates fall from round to round?",
        "Compare the initial set with the last round: do its images come from other bins?",
    )

    @property
    def dials(self) -> tuple[frames.Dial, ...]:
        """Round; class."""
        texts = ("initial set", *(f"round {number}" for number in range(1, len(self.counts))))
        classes = ("all classes", *self.images.class_names)
        return frames.Dial("round", texts, min(1, len(texts) - 1)), frames.Dial("class", classes)

    def draw(self, figure: Figure, places: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        at, label, labels, names = places[0], places[1] - 1, self.images.labels, self.images.class_names
        figure.subplots_adjust(bottom=0.02)
        members = np.ones(len(labels), dtype=bool) if label < 0 else labels == label
        score = self.scores[at - 1] if at else np.zeros(len(labels))
        added = np.flatnonzero(members & (self.round == at))
        added = added[np.argsort(-np.nan_to_num(score[added]), kind="stable")]
        grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1), hspace=0.42, wspace=0.2)
        left, right, low = map(figure.add_subplot, (grid[0, 0], grid[0, 1], grid[1, :]))
        now = np.bincount(labels[self.round == at], minlength=len(names))
        before = self.counts[at - 1] if at else 0 * now
        edge = ["black" if c == label else "none" for c in range(len(names))]
        left.bar(range(len(names)), before, color="#9ecae1", edgecolor=edge, label="before")
        left.bar(range(len(names)), now, bottom=before, color=frames.ORANGE, edgecolor=edge, label="this round")
        left.set(title="images of each class", ylim=(0, 1.2 * self.counts.max()))
        left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        left.legend(ncols=2, loc="upper left")
        frames.class_ticks(left, names)
        said = self._scores(right, score, members, added) if at else self._bins(right, added)
        who = f"class {names[label]}" if label >= 0 else "all classes"
        title = f"added, {who}: {len(added):,} ({'highest score first' if at else 'by position'})"
        most = 5 if self.images.size <= 16 else 4
        rows = int(np.clip(np.ceil(np.sqrt(len(added) / 4)), 2, most))  # to fill the place
        frames.show_images(low, self.images, added, 4 * rows, rows, title)
        step = f"Round {at}" if at else "Initial set"
        return f"{step}: {now.sum():,} images added, {self.counts[at].sum():,} in all. {said}"

    def _bins(self, axes: Axes, added: np.ndarray) -> str:
        axes.set_title("bins of the initial set")
        if self.bin is None:
            axes.text(0.5, 0.5, "drawn at random", ha="center", transform=axes.transAxes)
            return "It is drawn at random within the classes."
        count = np.bincount(self.bin[added], minlength=self.bin.max() + 1)
        axes.bar(np.arange(len(count)) + 1, count, color=frames.BLUE)
        axes.set_xlabel("bin, 1 = representative", labelpad=1)
        return f"Its images of these classes come from {np.count_nonzero(count)} of {len(count)} bins."

    def _scores(self, axes: Axes, score: np.ndarray, members: np.ndarray, added: np.ndarray) -> str:
        axes.set_title("score of the candidates")
        axes.set_xlabel("estimated utility", labelpad=1)
        candidates, n = score[members & np.isfinite(score)], len(added)
        if not len(candidates):
            axes.text(0.5, 0.5, "no candidates were scored", ha="center", transform=axes.transAxes)
            return "No candidate was scored in this round."
        edges = np.linspace(np.nanmin(self.scores), np.nanmax(self.scores), 31).tolist()
        axes.hist(candidates, edges, color="#bbbbbb", label=f"candidates: {len(candidates):,}")
        axes.hist(score[added], edges, color=frames.ORANGE, label=f"taken: {n:,}")
        axes.set_yscale("symlog", linthresh=10)
        axes.legend(loc="best")
        taken = f"the {n:,} taken score {np.nanmean(score[added]):.3g} on average" if n else "none is taken"
        return f"Of {len(candidates):,} candidates (mean score {candidates.mean():.3g}) {taken}."


def rounds_explorer(images: ImageSet, selection: Selection) -> RoundsExplorer | frames.Missing:
    """The rounds of a DQAS selection of these images."""

    def make() -> RoundsExplorer:
        frames.check_pool(images, selection)
        trace = selection.trace
        if not {"round", "counts", "scores"} <= trace.keys():
            name = selection.settings.get("method", {}).get("name", "this method")
            raise DataError(f"A selection by {name!r} has no rounds to step through: select with method='dqas'.")
        return RoundsExplorer(images, trace["round"], trace["counts"], trace["scores"], trace.get("bin"))

    return frames.or_sentence(RoundsExplorer, make)
