"""Explorers: what DQAS does when a ratio, a drop share, a budget or a round is moved. Plain Python, no widgets.

Each is made from results that are there already: tidy rows, selections, masks, fitted curves. The functions at the end
collect them from the store; what cannot be shown becomes a `Missing` with one sentence that says what to run.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dqas_lib.autoencoder import Autoencoder, reconstruct
from dqas_lib.bins import Bins
from dqas_lib.budget import largest_remainder, power_law_counts
from dqas_lib.compressed import save_compressed
from dqas_lib.errors import DataError, DqasError, InputError
from dqas_lib.experiments import compare, stored_ids
from dqas_lib.features import unit_rows
from dqas_lib.frames import Dial, Explorer, Missing, Question, class_ticks, in_bytes, show_images
from dqas_lib.images import DataSet, ImageSet
from dqas_lib.methods.base import Workbench
from dqas_lib.patched import Patchifier
from dqas_lib.patches import dropped_psnr, keep_mask, pixel_mask
from dqas_lib.plots import METHOD_COLOURS, METHOD_LABELS, OKABE_ITO
from dqas_lib.published import NOT_PUBLISHED, accuracies
from dqas_lib.quantize import Selection
from dqas_lib.sensitivity import ClassCurves
from dqas_lib.store import Store
from dqas_lib.tables import mean_interval
from dqas_lib.training import Recipe

BLUE, ORANGE, GREEN, PINK = OKABE_ITO[:4]
GREY = "#8c8c8c"
DOTS = 1500  # of an embedding: more only make it slower
BARS = 24  # classes of a bar chart with four bars a class


def label_of(method: str) -> str:
    """A method's name as it is written in figures."""
    return METHOD_LABELS.get(method, method)


def percent(ratio: float) -> str:
    """A ratio in per cent: 0.05 -> "5 %"."""
    return f"{100 * ratio:.3g} %"


# ------------------------------------------------------------------------------------------------- ratio


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
        "coloured by bin, kept images ringed; examples kept; examples dropped."
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
        colours = [METHOD_COLOURS.get(method, GREEN) if c == label else "#9ecae1" for c in range(len(counts))]
        axes.bar(range(len(counts)), counts, color=colours, width=0.8)
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
            colour = METHOD_COLOURS.get(other, GREEN)
            front = other == method
            axes.errorbar(
                100 * x,
                100 * mean,
                100 * np.nan_to_num(half),
                color=colour,
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
    centred = z - z.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, : -min(2, z.shape[1]) - 1 : -1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])] < 0, -1, 1)
    flat = centred @ axes
    return flat if flat.shape[1] == 2 else np.column_stack([flat, np.zeros(len(flat))])


# ------------------------------------------------------------------------------------------------- drop share


WENT_FIRST = {
    "importance": "where the network saw least evidence for the class, mostly background",
    "damage": "where the network saw little evidence for the class, or what can be painted in nearly as it was",
}


@dataclass(frozen=True, eq=False)
class DropExplorer:
    """An image, the importance of its patches, what is kept, what comes back, and bytes, as more patches are dropped.

    images: M images to look at; importance: (M, G), or what else decides which patches go first; thetas: rising shares
    to drop; painted: (T, M, H, W, 3) uint8 at every theta; n_bytes: (T,) bytes an image of the compressed set at every
    theta, masks and labels included, without the autoencoder; coder_bytes: of its weights, stored once a set; rule: by
    which patches go, of `patches.DROPS`.
    Raises DataError when shapes disagree.
    """

    images: ImageSet
    importance: np.ndarray
    thetas: tuple[float, ...]
    painted: np.ndarray
    n_bytes: tuple[float, ...]
    coder_bytes: int = 0
    rule: str = "importance"
    name: str = "drop_share"
    size: tuple[float, float] = (7.4, 3.9)

    title = "What dropping patches costs and saves"
    panels = (
        "Six panels: an image; the importance of its patches; the patches kept, dropped ones grey; the image with "
        "dropped patches painted in; error of the painted pixels and bytes an image, each against the share dropped."
    )

    def __post_init__(self) -> None:
        shape = (len(self.thetas), *self.images.images.shape)
        if self.painted.shape != shape or len(self.importance) != len(self.images) or not len(self.images):
            raise DataError(
                f"{len(self.images)} images at {len(self.thetas)} shares need reconstructions of shape {shape} and as "
                f"many importances; got {self.painted.shape} and {len(self.importance)}: make them again"
            )
        if len(self.n_bytes) != len(self.thetas):
            raise DataError(f"{len(self.thetas)} shares need as many byte counts; got {len(self.n_bytes)}")

    @property
    def dial(self) -> Dial:
        near = int(np.abs(np.array(self.thetas) - 0.25).argmin())
        return Dial("share dropped", tuple(percent(theta) for theta in self.thetas), near)

    @property
    def choices(self) -> tuple[Dial, ...]:
        names, labels = self.images.class_names, self.images.labels
        return (Dial("image", tuple(f"{names[c]} (id {i})" for c, i in zip(labels, self.images.ids, strict=True))),)

    def psnr(self, position: int, image: int | None = None) -> float:
        """dB of the painted pixels of one image, or of all together; infinite when nothing is dropped."""
        where = slice(None) if image is None else slice(image, image + 1)
        kept = keep_mask(self.importance[where], self.thetas[position])
        return dropped_psnr(self.images.images[where], self.painted[position, where], kept)

    def draw(self, figure: Figure, position: int, picks: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        (image,) = picks
        theta = self.thetas[position]
        original = self.images.images[image]
        kept = keep_mask(self.importance[image : image + 1], theta)
        mask = pixel_mask(kept, self.images.size)[0]
        side = round(self.importance.shape[1] ** 0.5)
        grid = figure.add_gridspec(
            2, 4, height_ratios=(1.25, 1), left=0.075, right=0.985, top=0.93, bottom=0.125, hspace=0.38, wspace=0.12
        )
        pictures = (
            ("image", original),
            (self.rule, self.importance[image].reshape(side, side)),
            (f"kept: {kept.sum()} of {kept.size}", np.where(mask[..., None], original, 150)),
            ("what comes back", self.painted[position, image]),
        )
        for place, (title, picture) in enumerate(pictures):
            axes = figure.add_subplot(grid[0, place])
            axes.imshow(picture, interpolation="nearest")
            axes.set(title=title, xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(True)
        low = grid[1, :].subgridspec(1, 2, wspace=0.28)
        ticks = [100 * t for t in self.thetas]
        left, right = figure.add_subplot(low[0, 0]), figure.add_subplot(low[0, 1])
        error = [255 * 10 ** (-self.psnr(p, image) / 20) for p in range(len(ticks))]
        for axes, values, colour, title in (
            (left, error, BLUE, "error of painted pixels (root mean square)"),
            (right, self.n_bytes, ORANGE, "bytes an image, masks included"),
        ):
            axes.plot(ticks, values, color=colour, marker="o", markersize=3)
            axes.plot(ticks[position], values[position], "o", markersize=10, fillstyle="none", color="black")
            axes.set(title=title, ylim=(0, 1.15 * max(*values, 1)))
            axes.set_xlabel("patches dropped (%)", labelpad=1)
            axes.yaxis.grid(True)
        saved = 1 - self.n_bytes[position] / self.n_bytes[0]
        told = "nothing is dropped" if kept.all() else f"painted pixels are off by {error[position]:.0f} of 255 levels"
        weights = f" The autoencoder adds {in_bytes(self.coder_bytes)} once a set." if self.coder_bytes else ""
        return (
            f"{kept.sum()} of {kept.size} patches are kept; {told}. {self.n_bytes[position]:.0f} bytes an image, "
            f"{100 * saved:.0f} % less than at {percent(self.thetas[0])}.{weights}"
        )

    def questions(self) -> tuple[Question, ...]:
        """See `frames.Explorer`."""
        at, last = self.dial.start, len(self.thetas) - 1
        saved = [100 * (1 - n / self.n_bytes[0]) for n in self.n_bytes]
        worst = [255 * 10 ** (-self.psnr(p) / 20) for p in (at, last)]
        return (
            Question(
                "Which patches go first?",
                f"Those with the lowest {self.rule}: {WENT_FIRST[self.rule]}. The mask keeps its order as the share "
                "grows: what is dropped at a small share is dropped at every larger one.",
            ),
            Question(
                f"Does dropping {percent(self.thetas[at])} of the patches save {percent(self.thetas[at])} of "
                "the bytes?",
                f"It saves {saved[at]:.0f} % here. The least important patches are often plain background, which "
                "compresses well, and masks and labels cost the same at every share.",
            ),
            Question(
                "How does the error of the painted pixels grow?",
                f"Over these {len(self.images)} images it is {worst[0]:.0f} of 255 levels at "
                f"{percent(self.thetas[at])} and "
                f"{worst[1]:.0f} at {percent(self.thetas[last])}. Patches that are dropped late hold more of "
                "the object, "
                "and fewer are left to guess them from.",
            ),
        )


# ------------------------------------------------------------------------------------------------- class budget


@dataclass(frozen=True, eq=False)
class BudgetExplorer:
    """Counts per class under equal, error, class-wise and DQAS rules as the budget grows, and predicted accuracy.

    class_names: C names; curves: fitted learning curves, err_c(n) = a_c n^-b_c + e_c; errors: (C,) validation errors
    for the rule "error"; caps: (C,) images there are; budgets: rising; measured: budget -> (C,) counts of a DQAS
    selection of that budget; kappas: shrinking of the class-wise rule toward equal counts, to choose from.
    Raises DataError when shapes disagree.
    """

    class_names: tuple[str, ...]
    curves: ClassCurves
    errors: np.ndarray
    caps: np.ndarray
    budgets: tuple[int, ...]
    measured: Mapping[int, np.ndarray] = field(default_factory=dict)
    kappas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    name: str = "class_budget"
    size: tuple[float, float] = (7.4, 4.4)

    title = "Dividing a budget among the classes"
    panels = (
        "Three panels: counts per class under four rules; how each class's share moved since the smallest budget; "
        "class accuracy the fitted curves predict."
    )

    def __post_init__(self) -> None:
        c = len(self.class_names)
        wrong = [len(x) for x in (self.curves.a, self.errors, self.caps, *self.measured.values()) if len(x) != c]
        if wrong:
            raise DataError(f"curves, errors and counts must be of {c} classes; got {wrong[0]}: make them again")
        if not self.budgets or min(self.budgets) < 1 or max(self.budgets) > sum(self.caps):
            raise DataError(f"budgets must lie between 1 and the {sum(self.caps):,} images; got {self.budgets!r}")

    @property
    def dial(self) -> Dial:
        total = sum(self.caps)
        texts = tuple(f"{budget:,} images ({percent(budget / total)})" for budget in self.budgets)
        return Dial("budget", texts, min(len(texts) // 3, len(texts) - 1))

    @property
    def choices(self) -> tuple[Dial, ...]:
        start = self.kappas.index(0.5) if 0.5 in self.kappas else 0
        return (Dial("shrink toward equal", tuple(f"{kappa:g}" for kappa in self.kappas), start),)

    def counts(self, budget: int, kappa: float) -> dict[str, np.ndarray]:
        """Rule -> (C,) whole counts that sum to the budget."""
        found = {
            "equal": largest_remainder((self.caps > 0).astype(float), budget, caps=self.caps),
            "error": largest_remainder(self.errors, budget, caps=self.caps),
            "class-wise": power_law_counts(self.curves.a, self.curves.b, budget, caps=self.caps, shrink=kappa),
        }
        if budget in self.measured:
            found["DQAS"] = np.asarray(self.measured[budget])
        return found

    def predicted(self, counts: np.ndarray) -> np.ndarray:
        """(C,) accuracy the curves predict at these counts, in [0, 1]; without any image that of a guess."""
        error = self.curves.error(np.maximum(counts, 0.5))
        return np.clip(1 - error, 1 / len(self.class_names), 1)

    def draw(self, figure: Figure, position: int, picks: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        budget, kappa = self.budgets[position], self.kappas[picks[0]]
        rules = self.counts(budget, kappa)
        order = np.argsort(-self.errors, kind="stable")
        chosen = order[:BARS]
        names = [self.class_names[c] for c in chosen]
        colours = {"equal": "#bbbbbb", "error": ORANGE, "class-wise": GREEN, "DQAS": BLUE}
        grid = figure.add_gridspec(2, 2, left=0.07, right=0.985, top=0.93, bottom=0.11, hspace=0.45, wspace=0.2)
        top = figure.add_subplot(grid[0, :])
        width = 0.8 / 4
        for place, (rule, counts) in enumerate(rules.items()):
            top.bar(
                np.arange(len(chosen)) + (place - 1.5) * width, counts[chosen], width, color=colours[rule], label=rule
            )
        top.set_title(f"images a class, hardest class first; {budget:,} in all")
        top.legend(ncols=4, loc="upper right", bbox_to_anchor=(1, 1.22), borderaxespad=0)
        first = self.counts(self.budgets[0], kappa)["class-wise"]
        now = rules["class-wise"]
        moved = 100 * (now / now.sum() - first / first.sum())
        low = figure.add_subplot(grid[1, 0])
        low.bar(range(len(chosen)), moved[chosen], color=np.where(moved[chosen] >= 0, GREEN, PINK))
        low.axhline(0, color="black", linewidth=0.8)
        low.set_title(f"class-wise share since {self.budgets[0]:,} images (points)")
        reach = max(1.0, *(self._reach(kappa)))
        low.set_ylim(-reach, reach)
        right = figure.add_subplot(grid[1, 1])
        for rule, counts in rules.items():
            values = 100 * self.predicted(counts)[chosen]
            right.plot(range(len(chosen)), values, "o", color=colours[rule], markersize=4.5, alpha=0.9)
        right.set_title("predicted accuracy of the class (%)")
        floor = 100 * self.predicted(self.counts(self.budgets[0], kappa)["equal"]).min()
        right.set_ylim(max(0, floor - 8), 101)
        for axes in (top, low, right):
            class_ticks(axes, names)
            axes.yaxis.grid(True)
        mean = {rule: 100 * self.predicted(counts).mean() for rule, counts in rules.items()}
        told = ", ".join(f"{rule} {value:.1f} %" for rule, value in mean.items())
        ran = "" if "DQAS" in rules else " DQAS was not run at this budget."
        return (
            f"{budget:,} images: class-wise gives {now.max():,} to {self.class_names[now.argmax()]} and "
            f"{now.min():,} to "
            f"{self.class_names[now.argmin()]}. Mean accuracy the curves predict: {told}.{ran}"
        )

    def _reach(self, kappa: float) -> tuple[float, float]:
        """Largest move of a share up and down over all budgets, so that the axis stays put."""
        shares = [(c := self.counts(b, kappa)["class-wise"]) / c.sum() for b in (self.budgets[0], self.budgets[-1])]
        return 110 * float(np.abs(shares[1] - shares[0]).max()), 0.0

    def questions(self) -> tuple[Question, ...]:
        """See `frames.Explorer`."""
        kappa = self.kappas[self.choices[0].start]
        small, large = (self.counts(b, kappa) for b in (self.budgets[0], self.budgets[-1]))
        gain = [100 * (self.predicted(c["class-wise"]) - self.predicted(c["equal"])).mean() for c in (small, large)]
        plain = self.counts(self.budgets[self.dial.start], 0.0)["class-wise"]
        hardest = self.class_names[int(np.argmax(self.errors))]
        most = self.class_names[int(plain.argmax())]
        return (
            Question(
                f"The hardest class is {hardest}. Does the class-wise rule give it most?",
                (f"Yes: {plain.max():,} images." if most == hardest else f"No: {most} gets most, {plain.max():,}.")
                + " The rule asks how much error another image takes away, which is not how much error "
                "there is: a class "
                "that stays hard whatever it gets earns nothing by being hard.",
            ),
            Question(
                "Set the shrinking to 1, then to 0. What does it guard against?",
                "At 1 all counts are equal, at 0 the fitted curves decide alone. The curves come from a few pilot runs "
                "and are uncertain; shrinking keeps a wrong curve from starving a class.",
            ),
            Question(
                "How much does the class-wise rule promise over equal counts, at the smallest and at the "
                "largest budget?",
                f"{gain[0]:+.2f} points of mean class accuracy at {self.budgets[0]:,} images and {gain[1]:+.2f} at "
                f"{self.budgets[-1]:,}. It is a promise of the curves; notebook 06 measures what is kept of it.",
            ),
        )


# ------------------------------------------------------------------------------------------------- rounds


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


# ------------------------------------------------------------------------------------------------- collected


def or_sentence(name: str, title: str, make: Callable[[], Explorer]) -> Explorer | Missing:
    """What `make` gives; when it raises a DqasError, one sentence in its place."""
    try:
        return make()
    except DqasError as error:
        text = " ".join(str(error).split())
        return Missing(name, title, text if text.endswith(".") else f"{text}.")


def ratio_explorer(
    data: DataSet,
    methods: Sequence[str],
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    network: str = "small_cnn",
    recipe: str | Recipe = "quick",
    device: str = "cpu",
    store: Store,
    compute: bool = False,
    workers: int | None = None,
    progress: bool = True,
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
            network=network,
            recipe=recipe,
            device=device,
            store=store,
            workers=workers,
            progress=progress,
            compute=compute,
        ).rows
        ids = {}
        for method in methods:
            for ratio in ratios:
                chosen = stored_ids(
                    data, method, ratio, seeds[0], network=network, recipe=recipe, device=device, store=store
                )
                if chosen is not None:
                    ids[method, float(ratio)] = chosen
        if not ids or not len(found):
            raise DataError(
                f"No results of {data.name!r} by this version of the library are in {store.root}: run notebook "
                f'06_train_and_evaluate with DATASET = "{data.name}" and the same RECIPE first, or set '
                'DATASET = "digits", whose results are computed in about a minute.'
            )
        bench = Workbench(data.train, seed=seeds[0], network=network, recipe=recipe, device=device, store=store)
        return RatioExplorer(
            data,
            ids,
            found,
            bench.features,
            bench.bins(10),
            n_bytes={key: stored_bytes(data.train.select(chosen), store) for key, chosen in ids.items()},
            full_bytes=stored_bytes(data.train, store),
        )

    return or_sentence("ratio", RatioExplorer.title, make)


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


def drop_explorer(
    stage: Patchifier, ids: Sequence, *, thetas: Sequence[float] | None = None, measure_on: int = 400
) -> DropExplorer | Missing:
    """The drop-share explorer of some images (by id).

    stage: a `Patchifier`, whose rule, importance and autoencoder are used; thetas: rising, from 0 (default: every
    sixteenth of the patches up to three quarters); bytes are measured on the first `measure_on` images by id.
    """

    def make() -> DropExplorer:
        shares = tuple(np.arange(13) / 16) if thetas is None else tuple(map(float, thetas))
        if not shares or list(shares) != sorted(set(shares)) or shares[0] != 0:
            raise InputError(f"thetas must rise from 0; got {shares!r}")
        bench = stage.bench
        images, importance = bench.images, stage.score  # what decides which patches go first
        places = images.positions(ids)
        sample = bench.by_id[:measure_on]
        painted, sizes = [], []
        for theta in shares:
            kept = keep_mask(importance, theta)
            painted.append(
                reconstruct(stage.coder, images.images[places], kept[places], device=bench.device)
                if theta
                else images.images[places]
            )
            sizes.append(_sizes(images.take(sample), kept[sample], stage.coder))
        coder = max(size.get("autoencoder.safetensors", 0) for size in sizes)
        n_bytes = [
            sum(n for name, n in size.items() if name not in ("manifest.json", "autoencoder.safetensors")) / len(sample)
            for size in sizes
        ]
        return DropExplorer(
            images.take(places),
            importance[places],
            shares,
            np.stack(painted),
            tuple(n_bytes),
            coder_bytes=coder,
            rule=stage.drop,
        )

    return or_sentence("drop_share", DropExplorer.title, make)


def budget_explorer(
    images: ImageSet,
    curves: ClassCurves,
    errors: np.ndarray,
    *,
    budgets: Sequence[int] | None = None,
    selections: Sequence[Selection] = (),
) -> BudgetExplorer | Missing:
    """The class-budget explorer.

    images: the set selected from; curves, errors: as in `BudgetExplorer`; budgets: default 16 from 2 % to 60 % of the
    images, and those of `selections`, whose counts are shown as DQAS's.
    """

    def make() -> BudgetExplorer:
        for selection in selections:
            _check_pool(images, selection)
        n = len(images)
        grown = np.geomspace(max(0.02 * n, images.n_classes), 0.6 * n, 16).round().astype(int)
        chosen = sorted({*map(int, grown if budgets is None else budgets), *(len(s) for s in selections)})
        measured = {len(s): s.class_counts for s in selections}
        return BudgetExplorer(
            images.class_names, curves, np.asarray(errors), images.class_counts, tuple(chosen), measured
        )

    return or_sentence("class_budget", BudgetExplorer.title, make)


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


def _check_pool(images: ImageSet, selection: Selection) -> None:
    """DataError unless the selection was made from these images."""
    if selection.settings.get("images", "") != images.fingerprint():
        raise DataError(
            f"This selection was made from other images than these {len(images):,} of {images.name!r}: "
            "select again, or "
            "give the images it was made from."
        )
