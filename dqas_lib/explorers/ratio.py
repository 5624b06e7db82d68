"""TODO."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dqas_lib.bins.bins import Bins
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.compare import compare
from dqas_lib.experiments.evaluate import select
from dqas_lib.experiments.published import NOT_PUBLISHED, accuracies
from dqas_lib.experiments.statistics import mean_interval
from dqas_lib.explorers.frames import (
    DOTS,
    GREEN,
    PINK,
    Dial,
    Missing,
    Question,
    class_ticks,
    in_bytes,
    label_of,
    or_sentence,
    percent,
    show_images,
    stored_bytes,
)
from dqas_lib.notebook.plots import METHOD_COLORS
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows
from dqas_lib.training.setting import Setting


@dataclass(frozen=True, eq=False)
class RatioExplorer:
    """Class counts, the images kept and dropped of a class, bins in the embedding, accuracy and bytes at a ratio.

    data: the data set the results are of; ids: (method, ratio) -> (B,) ids kept; rows: tidy rows of `compare`;
    features: (N, d) of the training images; bins: of the same; n_bytes: (method, ratio) -> bytes on disk of the
    compressed set; full_bytes: of all images in the same lossless format.
    Published values come from `published`.
    Raises DataError for results of another data set, or when there are none.
    """

    data: DataSet
    ids: Mapping[tuple[str, float], np.ndarray]
    rows: pd.DataFrame
    features: np.ndarray
    bins: Bins
    n_bytes: Mapping[tuple[str, float], int] = field(default_factory=dict)
    full_bytes: int = 0
    name: str = "ratio"
    size: tuple[float, float] = (7.4, 4.7)

    title = "What DQAS keeps at a ratio"
    panels = (
        "Five panels: images kept of each class; test accuracy against the ratio; the chosen class in two dimensions, "
        "colored by bin, kept images ringed; examples kept; examples dropped."
    )

    def __post_init__(self) -> None:
        n = len(self.data.train)
        if not self.ids or not len(self.rows):
            raise DataError(f"there are no results of {self.data.name!r} to explore")
        others = set(self.rows["dataset"]) - {self.data.name}
        if others:
            raise DataError(
                f"these results are of {', '.join(sorted(map(repr, others)))}, the images are of {self.data.name!r}: "
                "give results and images of one data set"
            )
        if len(self.features) != n or len(self.bins.bin) != n:
            raise DataError(
                f"features and bins are of {len(self.features):,} and {len(self.bins.bin):,} images, "
                f"{self.data.name!r} "
                f"has {n:,}: make them again"
            )

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(sorted({ratio for _, ratio in self.ids} | set(self.rows.loc[self.rows["ratio"] < 1, "ratio"])))

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(method for method, _ in self.ids))

    @property
    def dial(self) -> Dial:
        return Dial("ratio", tuple(percent(ratio) for ratio in self.ratios), min(1, len(self.ratios) - 1))

    @property
    def choices(self) -> tuple[Dial, ...]:
        return (
            Dial("class", self.data.train.class_names),
            Dial("method", tuple(label_of(method) for method in self.methods)),
        )

    def draw(self, figure: Figure, position: int, picks: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        label, method = picks[0], self.methods[picks[1]]
        ratio = self.ratios[position]
        kept = self._kept(method, ratio)
        grid = figure.add_gridspec(
            2, 6, height_ratios=(1.25, 1), left=0.065, right=0.985, top=0.93, bottom=0.02, hspace=0.5, wspace=1.3
        )
        self._counts(figure.add_subplot(grid[0, :2]), kept, label, method)
        accuracy = self._accuracy(figure.add_subplot(grid[0, 2:4]), method, ratio)
        self._embedding(figure.add_subplot(grid[0, 4:]), kept, label)
        train = self.data.train
        members = np.flatnonzero(train.labels == label)
        members = self.bins.order(members)
        inside, outside = members[kept[members]], members[~kept[members]]
        name = train.class_names[label]
        axes = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
        for where, chosen, word in zip(axes, (inside, outside), ("kept", "dropped"), strict=True):
            # evenly through the greedy order, so that every bin is seen
            shown = (
                chosen[np.unique(np.linspace(0, len(chosen) - 1, 32).round().astype(int))] if len(chosen) else chosen
            )
            show_images(where, train.images[shown], 8, 4, f"class {name}, {word}: {len(chosen):,}")
        return self._caption(kept, label, method, ratio, accuracy)

    def _kept(self, method: str, ratio: float) -> np.ndarray:
        """(N,) bool, True for the images a method keeps."""
        if (method, ratio) not in self.ids:
            raise DataError(
                f"There is no selection by {label_of(method)} at {percent(ratio)} of {self.data.name!r} here: run "
                f"notebook 06_train_and_evaluate with {ratio:g} among its RATIOS."
            )
        kept = np.zeros(len(self.data.train), dtype=bool)
        try:
            kept[self.data.train.positions(self.ids[method, ratio])] = True
        except InputError as error:
            raise DataError(
                f"The selection at {percent(ratio)} is of other images ({error}): make it again."
            ) from error
        return kept

    def _counts(self, axes, kept: np.ndarray, label: int, method: str) -> None:
        train = self.data.train
        counts = np.bincount(train.labels[kept], minlength=train.n_classes)
        colors = [METHOD_COLORS.get(method, GREEN) if c == label else "#9ecae1" for c in range(len(counts))]
        axes.bar(range(len(counts)), counts, color=colors, width=0.8)
        equal = kept.sum() / train.n_classes
        axes.axhline(equal, color="black", linestyle="--", linewidth=0.9)
        axes.annotate("equal", (1, equal), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
        axes.set_title("images kept, by class")
        class_ticks(axes, train.class_names)
        axes.yaxis.grid(True)

    def _accuracy(self, axes, method: str, ratio: float) -> tuple[float, float, int]:
        """Draw accuracy against ratio; gives mean, half width of the interval and number of seeds at this ratio."""
        found = None
        for other in [name for name in self.methods if name != method] + [method]:
            rows = self.rows[(self.rows["method"] == other) & (self.rows["ratio"] < 1)]
            points = [(r, *mean_interval(g["accuracy"]), len(g)) for r, g in rows.groupby("ratio")]
            if not points:
                continue
            x, mean, half, _ = np.array(points).T
            color = METHOD_COLORS.get(other, GREEN)
            front = other == method
            axes.errorbar(
                100 * x,
                100 * mean,
                100 * np.nan_to_num(half),
                color=color,
                marker="o",
                markersize=3.5,
                linewidth=1.6 if front else 1,
                alpha=1 if front else 0.55,
                capsize=2,
                label=label_of(other),
            )
            for r, m, h, n in points:
                if front and r == ratio:
                    found = m, h, n
                    axes.plot(100 * r, 100 * m, "o", markersize=11, fillstyle="none", color="black")
        if found is None:
            raise DataError(
                f"No training of {label_of(method)} at {percent(ratio)} of {self.data.name!r} is here: run notebook "
                f"06_train_and_evaluate with {ratio:g} among its RATIOS."
            )
        shown = [(100 * r, a.value) for r in self.ratios for a in accuracies(self.data.name, method, r)]
        if shown:
            axes.plot(*zip(*shown, strict=True), "*", color=PINK, markersize=9, label="published")
        means = self.rows[self.rows["ratio"] < 1].groupby(["method", "ratio"])["accuracy"].mean()
        lowest = min([100 * means.min(), *(value for _, value in shown)])
        axes.set_ylim(lowest - 0.3 * (101 - lowest), 101)
        axes.set_xscale("log")
        axes.set_xticks([100 * r for r in self.ratios], [f"{100 * r:.3g}" for r in self.ratios])
        axes.minorticks_off()
        axes.set_title("test accuracy (%)")
        axes.set_xlabel("images kept (%)", labelpad=1)
        axes.yaxis.grid(True)
        axes.legend(loc="lower right")
        return found

    def _embedding(self, axes, kept: np.ndarray, label: int) -> None:
        members = np.flatnonzero(self.data.train.labels == label)
        step = max(1, -(-len(members) // DOTS))
        members = members[::step]
        z = unit_rows(self.features[members]).astype(np.float64)
        flat = _two_dimensions(z)
        axes.scatter(*flat.T, c=self.bins.bin[members], cmap="cividis_r", s=9, linewidth=0, vmin=0)
        inside = kept[members]
        axes.scatter(*flat[inside].T, s=26, facecolor="none", edgecolor="#D55E00", linewidth=1)
        axes.set(title=f"class {self.data.train.class_names[label]} by bin", xticks=[], yticks=[])
        axes.set_xlabel("pale: typical, dark: strange\nringed: kept", fontsize=7.5)
        axes.margins(0.06)

    def _caption(self, kept, label, method, ratio, accuracy) -> str:
        train = self.data.train
        mean, half, n = accuracy
        interval = f" ± {100 * half:.1f}" if np.isfinite(half) else ""
        seeds = "1 seed, no interval" if n == 1 else f"{n:.0f} seeds, 95 % interval"
        counts = np.bincount(train.labels[kept], minlength=train.n_classes)
        most, least = counts.argmax(), counts.argmin()
        stored = self.n_bytes.get((method, ratio))
        size = f" Stored: {in_bytes(stored)}" if stored else ""
        size += f" of {in_bytes(self.full_bytes)} for all images, both lossless." if stored and self.full_bytes else ""
        return (
            f"{label_of(method)} keeps {kept.sum():,} of {len(kept):,} images ({percent(ratio)}): "
            f"{counts[label]:,} of class {train.class_names[label]}; most of {train.class_names[most]} "
            f"({counts[most]:,}), fewest of {train.class_names[least]} ({counts[least]:,}). Accuracy "
            f"{100 * mean:.1f}{interval} % ({seeds}); {self._published(method, ratio)}.{size}"
        )

    def _published(self, method: str, ratio: float) -> str:
        found = accuracies(self.data.name, method, ratio)
        if not found:
            return f"published for this: {NOT_PUBLISHED}"
        rows = self.rows[self.rows["method"] == method]
        why = found[0].compare_with(network=rows["network"].iloc[0], recipe=rows["recipe"].iloc[0])
        return f"published: {found[0].value:.1f} % ({found[0].source})" + (f", not comparable: {why}" if why else "")

    def questions(self) -> tuple[Question, ...]:
        """See `frames.Explorer`."""
        method = self.methods[0]
        train = self.data.train
        there = [ratio for ratio in self.ratios if (method, ratio) in self.ids]
        counts = np.stack([np.bincount(train.labels[self._kept(method, r)], minlength=train.n_classes) for r in there])
        shares = counts / counts.sum(axis=1, keepdims=True) * train.n_classes
        top = int(shares[0].argmax())
        answers = [
            Question(
                f"Which class gets most at {percent(there[0])}, and does it still at {percent(there[-1])}?",
                f"Class {train.class_names[top]} with {counts[0, top]:,} images, {shares[0, top]:.2f} times an equal "
                f"share; at {percent(there[-1])} it is {shares[-1, top]:.2f} times. Over all classes the shares spread "
                f"by {shares[0].std():.2f} around 1 at {percent(there[0])} and by {shares[-1].std():.2f} at "
                f"{percent(there[-1])}.",
            )
        ]
        means = self.rows[self.rows["ratio"] < 1].groupby(["method", "ratio"])["accuracy"].mean()
        own = 100 * means.get(method, pd.Series(dtype=float))
        if len(own) > 1:
            (r0, r1), (s0, s1) = own.index[:2], own.index[-2:]
            answers.append(
                Question(
                    "Where on the accuracy curve is an image worth most?",
                    f"From {percent(r0)} to {percent(r1)} accuracy moves by {own[r1] - own[r0]:+.1f} points, that is "
                    f"{(own[r1] - own[r0]) / (100 * (r1 - r0)):+.2f} for each per cent of the images; from "
                    f"{percent(s0)} "
                    f"to {percent(s1)} by {(own[s1] - own[s0]) / (100 * (s1 - s0)):+.2f} for each.",
                )
            )
        others = [name for name in self.methods if name != method and name in means]
        gain = (own - 100 * means[others[0]]).dropna() if others else own[:0]
        if len(gain):
            answers.append(
                Question(
                    f"The paler curve is {label_of(others[0])}. At which ratio do the two differ most, and is that "
                    "more than the intervals?",
                    f"At {percent(gain.abs().idxmax())}: {label_of(method)} minus {label_of(others[0])} is "
                    f"{gain[gain.abs().idxmax()]:+.1f} points. Compare it with the bars: with few seeds they are wide. "
                    "Notebook 06 compares the methods seed by seed, which is sharper.",
                )
            )
        return tuple(answers)


def _two_dimensions(z: np.ndarray) -> np.ndarray:
    """(n, 2) principal coordinates of (n, d) rows; the sign is fixed, so that equal rows give equal pictures."""
    centered = z - z.mean(axis=0)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    axes = vectors[:, : -min(2, z.shape[1]) - 1 : -1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1, 1)
    flat = centered @ axes
    return flat if flat.shape[1] == 2 else np.column_stack([flat, np.zeros(len(flat))])


def ratio_explorer(
    data: DataSet,
    methods: Sequence[str],
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    setting: Setting,
    compute: bool = False,
    workers: int | None = None,
) -> RatioExplorer | Missing:
    """The ratio explorer of a comparison that notebook 06 left in the store; `compute`: compute what is missing.

    methods: the first one is shown first; ids, images and bytes are those of seeds[0]. Only the library that wrote a
    result reads it: results of an older one count as absent, and the sentence says what to run.
    """

    def make() -> RatioExplorer:
        found = compare(
            data,
            list(methods),
            ratios,
            seeds,
            setting=setting,
            workers=workers,
            compute=compute,
        ).rows
        ids = {}
        for method in methods:
            for ratio in ratios:
                chosen = select(data.train, ratio, method, seeds[0], setting, compute=False)
                if chosen is not None:
                    ids[method, float(ratio)] = chosen.images.ids
        if not ids or not len(found):
            raise DataError(
                f"No results of {data.name!r} by this version of the library are in {setting.store.root}: run notebook "
                f'06_train_and_evaluate with DATASET = "{data.name}" and the same RECIPE first, or set '
                'DATASET = "digits", whose results are computed in about a minute.'
            )
        pool = Pool(data.train, seed=seeds[0], setting=setting)
        return RatioExplorer(
            data,
            ids,
            found,
            pool.features,
            pool.bins(10),
            n_bytes={key: stored_bytes(data.train.select(chosen), setting.store) for key, chosen in ids.items()},
            full_bytes=stored_bytes(data.train, setting.store),
        )

    return or_sentence("ratio", RatioExplorer.title, make)
