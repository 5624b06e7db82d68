"""TODO."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers.frames import (
    BLUE,
    ORANGE,
    Dial,
    Missing,
    Question,
    _check_pool,
    class_ticks,
    or_sentence,
    show_images,
)
from dqas_lib.quantize import Selection

WENT_FIRST = {
    "importance": "where the network saw least evidence for the class, mostly background",
    "importance x error": "where the network saw little evidence for the class, or what can be painted in nearly as it was",
}


@dataclass(frozen=True, eq=False)
class RoundsExplorer:
    """The rounds of a DQAS selection, one by one: counts, scores of the candidates, images added.

    images: the pool selected from; round: (N,) round of each image, -1 when it was not chosen; counts: (R + 1, C)
    after each round; scores: (R, N) of the candidates, else NaN; bin: (N,) or None.
    Raises DataError when they are not of these images.
    """

    images: ImageSet
    round: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    bin: np.ndarray | None = None
    name: str = "rounds"
    size: tuple[float, float] = (7.4, 4.4)

    title = "DQAS, round by round"
    panels = (
        "Three panels: images of each class so far, those of this round on top; the scores of the "
        "candidates with those "
        "taken; images added in this round."
    )

    def __post_init__(self) -> None:
        n, c = len(self.images), self.images.n_classes
        if len(self.round) != n or self.scores.ndim != 2 or self.scores.shape[1] != n or self.counts.shape[1:] != (c,):
            raise DataError(
                f"the rounds are of {len(self.round):,} images of {self.counts.shape[-1]} classes, the images are "
                f"{n:,} of {c}: select again"
            )
        if len(self.scores) + 1 < len(self.counts):
            raise DataError(f"{len(self.counts) - 1} rounds need as many rows of scores; got {len(self.scores)}")

    @property
    def dial(self) -> Dial:
        rounds = tuple(f"round {number}" for number in range(1, len(self.counts)))
        return Dial("round", ("first share", *rounds), min(1, len(rounds)))

    @property
    def choices(self) -> tuple[Dial, ...]:
        return (Dial("class", ("all classes", *self.images.class_names)),)

    def draw(self, figure: Figure, position: int, picks: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        label = picks[0] - 1
        mine = np.ones(len(self.images), dtype=bool) if label < 0 else self.images.labels == label
        added = np.flatnonzero(mine & (self.round == position))
        score = self.scores[position - 1] if position else np.full(len(self.images), np.nan)
        added = added[np.argsort(-np.nan_to_num(score[added]), kind="stable")]
        grid = figure.add_gridspec(
            2, 2, height_ratios=(1.15, 1), left=0.07, right=0.985, top=0.93, bottom=0.02, hspace=0.42, wspace=0.2
        )
        left = figure.add_subplot(grid[0, 0])
        before = self.counts[position - 1] if position else np.zeros_like(self.counts[0])
        now = np.bincount(self.images.labels[self.round == position], minlength=len(before))
        edge = ["black" if c == label else "none" for c in range(len(before))]
        left.bar(range(len(before)), before, color="#9ecae1", edgecolor=edge, label="before")
        left.bar(range(len(before)), now, bottom=before, color=ORANGE, edgecolor=edge, label="this round")
        left.set(title="images of each class", ylim=(0, 1.2 * self.counts.max()))
        left.legend(ncols=2, loc="upper left")
        left.yaxis.grid(True)
        class_ticks(left, self.images.class_names)
        right = figure.add_subplot(grid[0, 1])
        told = self._scores(right, position, mine, added)
        low = figure.add_subplot(grid[1, :])
        who = "all classes" if label < 0 else f"class {self.images.class_names[label]}"
        columns, rows = 20, 5
        if self.images.size > 16:
            columns, rows = 16, 4
        shown = (
            added[np.unique(np.linspace(0, len(added) - 1, columns * rows).round().astype(int))]
            if len(added)
            else added
        )
        order = "highest score first" if position else "by position"
        show_images(low, self.images.images[shown], columns, rows, f"added, {who}: {len(added):,} ({order})")
        total = self.counts[min(position, len(self.counts) - 1)].sum()
        step = f"Round {position}" if position else "First share"
        return f"{step}: {now.sum():,} images added, {total:,} in all. {told}"

    def _scores(self, axes, position: int, mine: np.ndarray, added: np.ndarray) -> str:
        if not position:
            axes.set_title("bins of the first share")
            if self.bin is None:
                axes.text(0.5, 0.5, "drawn at random", ha="center", transform=axes.transAxes)
                return "It is drawn at random within the classes."
            count = np.bincount(self.bin[added], minlength=self.bin.max() + 1)
            axes.bar(np.arange(len(count)) + 1, count, color=BLUE)
            axes.set_xlabel("bin, 1 = typical", labelpad=1)
            axes.yaxis.grid(True)
            return f"Its images of these classes come from {np.count_nonzero(count)} of {len(count)} bins."
        score = self.scores[position - 1]
        there = mine & np.isfinite(score)
        axes.set_title("score of the candidates")
        axes.set_xlabel("expected error reduction (uncertainty)", labelpad=1)
        if not there.any():
            axes.text(0.5, 0.5, "no candidates were scored", ha="center", transform=axes.transAxes)
            return "No candidate was scored in this round."
        edges = np.linspace(*np.nanquantile(self.scores, (0, 1)), 31)
        axes.hist(score[there], edges, color="#bbbbbb", label=f"candidates: {there.sum():,}")
        axes.hist(score[added], edges, color=ORANGE, label=f"taken: {len(added):,}")
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.grid(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.55, 1))
        mean = np.nanmean(score[added]) if len(added) else np.nan
        told = f"the {len(added):,} taken score {mean:.2f} on average" if len(added) else "none is taken"
        return f"Of {there.sum():,} candidates (mean score {np.mean(score[there]):.2f}) {told}."

    def questions(self) -> tuple[Question, ...]:
        """See `frames.Explorer`."""
        names = self.images.class_names
        first, last = self.counts[0], self.counts[-1]
        shares = last / last.sum() - first / first.sum()
        up, down = names[int(shares.argmax())], names[int(shares.argmin())]
        means = [float(np.nanmean(row)) for row in self.scores if np.isfinite(row).any()]
        fell = len(means) > 1 and means[-1] < means[0]
        answers = [
            Question(
                "Whose share grows through the rounds, whose shrinks?",
                f"{up} gains {100 * shares.max():.1f} points of share, {down} loses "
                f"{-100 * shares.min():.1f}. The counts "
                "follow the validation error of learners trained on what is selected so far.",
            )
        ]
        if means:
            answers.append(
                Question(
                    "Does the mean score of the candidates fall from round to round? Why should it?",
                    f"It goes {' → '.join(f'{m:.2f}' for m in means)}: "
                    + ("it falls" if fell else "here it does not fall")
                    + ". Each round takes the highest scores out of the pool, and learners trained on more images "
                    "tend to be surer.",
                )
            )
        answers.append(
            Question(
                "Compare the images of the first share with those of the last round. What kind is added late?",
                "Late images are those the learners hesitate about: unusual ones, or close to another class. A first "
                "training needs typical ones before such images teach it much.",
            )
        )
        return tuple(answers)


def rounds_explorer(images: ImageSet, selection: Selection) -> RoundsExplorer | Missing:
    """The rounds of a DQAS selection of these images."""

    def make() -> RoundsExplorer:
        _check_pool(images, selection)
        trace = selection.trace
        missing = [name for name in ("round", "counts", "scores") if name not in trace]
        if missing:
            name = selection.settings.get("method", {}).get("name", "this method")
            raise DataError(f"A selection by {name!r} has no rounds to step through: select with method='dqas'.")
        return RoundsExplorer(images, trace["round"], trace["counts"], trace["scores"], trace.get("bin"))

    return or_sentence("rounds", RoundsExplorer.title, make)
