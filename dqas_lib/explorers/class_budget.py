"""TODO."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

from dqas_lib.budget.class_counts import largest_remainder, power_law_counts
from dqas_lib.budget.sensitivity import ClassCurves
from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers.frames import (
    BARS,
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    Dial,
    Missing,
    Question,
    _check_pool,
    class_ticks,
    or_sentence,
    percent,
)
from dqas_lib.quantize import Selection


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
        colors = {"equal": "#bbbbbb", "error": ORANGE, "class-wise": GREEN, "DQAS": BLUE}
        grid = figure.add_gridspec(2, 2, left=0.07, right=0.985, top=0.93, bottom=0.11, hspace=0.45, wspace=0.2)
        top = figure.add_subplot(grid[0, :])
        width = 0.8 / 4
        for place, (rule, counts) in enumerate(rules.items()):
            top.bar(
                np.arange(len(chosen)) + (place - 1.5) * width, counts[chosen], width, color=colors[rule], label=rule
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
            right.plot(range(len(chosen)), values, "o", color=colors[rule], markersize=4.5, alpha=0.9)
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
