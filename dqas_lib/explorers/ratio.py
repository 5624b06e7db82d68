"""The ratio explorer: what a method keeps at a ratio, and what that costs in accuracy and saves in bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from jinja2.filters import do_filesizeformat as in_bytes
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dqas_lib.bins.bins import Bins
from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.experiments.compare import Sources, compare, labeled
from dqas_lib.experiments.evaluate import select
from dqas_lib.experiments.published import NOT_PUBLISHED, accuracies
from dqas_lib.experiments.statistics import mean_interval
from dqas_lib.explorers import frames
from dqas_lib.explorers.drop import file_sizes
from dqas_lib.explorers.frames import percent
from dqas_lib.notebook.plots import colors_of, label_of
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows
from dqas_lib.training.setting import Setting

DOTS = 1500  # of an embedding: more only make it slower


@dataclass(frozen=True, eq=False)
class RatioExplorer:
    """Class counts, images kept and dropped, bins in the embedding, accuracy."""

    data: DataSet
    ids: Mapping[tuple[str, float], np.ndarray]  # (method, ratio) -> ids of the images kept
    rows: pd.DataFrame  # one per training, as `Comparison.rows`
    features: np.ndarray  # (N, d) of the training images
    bins: Bins
    n_bytes: Mapping[tuple[str, float], int] = field(default_factory=dict)  # of the selections as compressed sets
    full_bytes: int = 0  # of all images in the same lossless format
    name = "ratio"
    size = (7.4, 4.7)
    title = "What DQAS keeps at a ratio"
    questions = (
        "Which class gets most at the lowest ratio, and does it still at the highest?",
        "Where on the curve does another image raise accuracy most?",
        "The paler curves are other methods. Where do they differ most? Compare it with the bars.",
    )

    @cached_property
    def accuracy(self) -> dict[tuple[str, float], tuple[int, float, float]]:
        """(method, ratio below 1) -> n, mean and half of the 95 % interval over seeds, in per cent."""
        cells: Any = self.rows[self.rows["ratio"] < 1].sort_values("ratio").groupby(["method", "ratio"], sort=False)
        return {key: (len(cell), *mean_interval(100 * cell["accuracy"])) for key, cell in cells}

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        """All ratios, rising."""
        return tuple(sorted({ratio for _, ratio in [*self.ids, *self.accuracy]}))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The methods whose selections there are."""
        return tuple(dict.fromkeys(method for method, _ in self.ids))

    @property
    def dials(self) -> tuple[frames.Dial, ...]:
        """Ratio; class, method."""
        return (
            frames.Dial("ratio", tuple(map(percent, self.ratios)), min(1, max(0, len(self.ratios) - 2))),
            frames.Dial("class", self.data.train.class_names),
            frames.Dial("method", tuple(map(label_of, self.methods))),
        )

    def kept(self, method: str, ratio: float) -> np.ndarray:
        """(N,) bool, True for the images a method keeps. Raises DataError where that is not known."""
        if (method, ratio) not in self.ids:
            raise DataError(f"There is no selection by {self._run_06(method, ratio)}")
        kept = np.isin(self.data.train.ids, self.ids[method, ratio])
        if kept.sum() < len(self.ids[method, ratio]):
            raise DataError(f"The selection at {percent(ratio)} is of other images: make it again.")
        return kept

    def _run_06(self, method: str, ratio: float, verb: str = "") -> str:
        where = f"{label_of(method)} at {percent(ratio)} of {self.data.name!r} {verb}here"
        return f"{where}: run notebook 06_train_and_evaluate with {ratio:g} among its RATIOS."

    def draw(self, figure: Figure, places: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        ratio, label, method = self.ratios[places[0]], places[1], self.methods[places[2]]
        figure.subplots_adjust(bottom=0.02)
        train, kept, names = self.data.train, self.kept(method, ratio), self.data.train.class_names
        counts = np.bincount(train.labels[kept], minlength=train.n_classes)
        grid = figure.add_gridspec(2, 6, height_ratios=(1.25, 1), hspace=0.5, wspace=1.3)
        axes = figure.add_subplot(grid[0, :2], title="images kept, by class")
        own = colors_of(self.methods)[method]
        axes.bar(range(len(counts)), counts, color=[own if c == label else "#9ecae1" for c in range(len(counts))])
        axes.axhline(counts.mean(), color="black", linestyle="--", linewidth=0.9)
        axes.text(1, counts.mean(), "equal", transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=7)
        frames.class_ticks(axes, names)
        reached = self._accuracy(figure.add_subplot(grid[0, 2:4]), method, ratio)
        self._embedding(figure.add_subplot(grid[0, 4:], title=f"class {names[label]} by bin"), kept, label)
        members = self.bins.order(np.flatnonzero(train.labels == label))
        for place, word, part in (grid[1, :3], "kept", kept[members]), (grid[1, 3:], "dropped", ~kept[members]):
            title = f"class {names[label]}, {word}: {part.sum():,}"
            frames.show_images(figure.add_subplot(place), train, members[part], 8, 4, title)
        most, least, stored = counts.argmax(), counts.argmin(), self.n_bytes.get((method, ratio), 0)
        full = f" of {in_bytes(self.full_bytes)} for all images, both lossless" if self.full_bytes else ""
        size = f" Stored: {in_bytes(stored)}{full}." if stored else ""
        return (
            f"{label_of(method)} keeps {kept.sum():,} of {len(kept):,} images ({percent(ratio)}): {counts[label]:,} of "
            f"class {names[label]}; most of {names[most]} ({counts[most]:,}), fewest of {names[least]} "
            f"({counts[least]:,}). Accuracy {reached}; {self._published(method, ratio)}.{size}"
        )

    def _accuracy(self, axes: Axes, method: str, ratio: float) -> str:
        """Draw the curves; gives this point in words."""
        if (method, ratio) not in self.accuracy:
            raise DataError(f"No training of {self._run_06(method, ratio, 'is ')}")
        lines = len(self.methods) + 1  # of the legend, above the curves
        for other in sorted(self.methods, key=lambda name: name == method):  # the chosen one in front
            points = [(100 * r, *point) for (name, r), point in self.accuracy.items() if name == other]
            if points:
                x, _, y, bars = np.nan_to_num(points).T
                width, alpha = (1.6, 1.0) if other == method else (1.0, 0.8)
                label, color = label_of(other), colors_of(self.methods)[other]
                axes.errorbar(x, y, bars, capsize=2, marker="o", color=color, label=label, linewidth=width, alpha=alpha)
        n, mean, half = self.accuracy[method, ratio]
        axes.plot(100 * ratio, mean, "o", markersize=11, fillstyle="none", color="black")
        published = [(100 * r, a.value) for r in self.ratios for a in accuracies(self.data.name, method, r)]
        if published:
            axes.plot(*zip(*published, strict=True), "*", color=frames.PINK, markersize=9, label="published")
        values = [value for _, value in [*published, *(point[:2] for point in self.accuracy.values())]]
        low, span = min(values), max(max(values) - min(values), 5.0)
        limits = low - 0.15 * span, low + (1.15 + 0.17 * lines) * span
        axes.set(title="test accuracy (%)", xscale="log", ylim=limits)
        axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])
        axes.set_ylim(limits)
        axes.set_xticks([100 * r for r in self.ratios], [f"{100 * r:.3g}" for r in self.ratios])
        axes.minorticks_off()
        axes.set_xlabel("images kept (%)", labelpad=1)
        axes.legend(loc="upper left")
        interval = (
            f" ± {half:.1f} % ({n} seeds, 95 % interval)"
            if half == half
            else f" % ({n} of 3 seeds that an interval needs)"
        )
        return f"{mean:.1f}{interval}"

    def _published(self, method: str, ratio: float) -> str:
        known, row = accuracies(self.data.name, method, ratio), self.rows[self.rows["method"] == method].iloc[0]
        if not known:
            return f"published for this: {NOT_PUBLISHED}"
        why = known[0].compare_with(network=row["network"], recipe=row["recipe"])
        return f"published: {known[0].value:.1f} % ({known[0].source})" + (f", not comparable: {why}" if why else "")

    def _embedding(self, axes: Axes, kept: np.ndarray, label: int) -> None:
        """Two principal components of a class; their signs are fixed, so that equal rows give equal pictures."""
        members = np.flatnonzero(self.data.train.labels == label)
        members = members[:: -(-len(members) // DOTS) or 1]
        z = unit_rows(self.features[members]).astype(np.float64)
        z -= z.mean(axis=0)
        main = np.linalg.eigh(z.T @ z)[1][:, [-1, -2]]
        x, y = (z @ (main * np.where(main.sum(axis=0) < 0, -1, 1))).T
        axes.scatter(x, y, c=self.bins.bin[members], cmap="cividis_r", s=9, linewidth=0, vmin=0)
        ringed = kept[members]
        axes.scatter(x[ringed], y[ringed], s=26, facecolor="none", edgecolor="#D55E00", linewidth=1)
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel("pale: representative, dark:\natypical; ringed: kept", fontsize=7.5)
        axes.margins(0.06)


def ratio_explorer(
    data: DataSet,
    methods: Sources,
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    setting: Setting,
    compute: bool = False,
    workers: int | None = None,
) -> RatioExplorer | frames.Missing:
    """The ratio explorer of a comparison that notebook 06 left in the store.

    Args:
        data, methods, ratios, seeds, setting, workers: As in `compare`; the first method is shown first, and ids,
            images and bytes are those of seeds[0].
        compute: Compute what is missing. Otherwise only results of this version of the library are read, and the
            sentence in their place says what to run.
    """

    def make() -> RatioExplorer:
        named, train = labeled(methods), data.train
        rows = compare(data, named, ratios, seeds, setting=setting, workers=workers, compute=compute).rows
        found = {
            (label, float(ratio)): select(train, ratio, method, seeds[0], setting, compute=compute)
            for (label, method), ratio in product(named.items(), ratios)
        }
        ids = {key: selected.images.ids for key, selected in found.items() if selected is not None}
        if not ids or not len(rows):
            raise DataError(
                f"No results of {data.name!r} by this version of the library are in "
                f"{setting.store.root if setting.store else 'no store'}: run notebook 06_train_and_evaluate with "
                f'DATASET = "{data.name}" and the same RECIPE first, or set DATASET = "digits", whose results are '
                "computed in about a minute."
            )
        pool = Pool(train, seed=seeds[0], setting=setting)

        def n_bytes(images: ImageSet) -> int:
            measure = lambda: {"bytes": sum(file_sizes(images).values())}  # noqa: E731
            return int(pool.stage("bytes", {"of": images.fingerprint()}, measure, (save_compressed,))["bytes"])

        sizes = {key: n_bytes(train.select(kept)) for key, kept in ids.items()}
        return RatioExplorer(data, ids, rows, pool.features, pool.bins(10), sizes, n_bytes(train))

    return frames.or_sentence(RatioExplorer, make)
