"""The class-budget explorer: how rules divide a budget among the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dqas_lib.budget.class_counts import largest_remainder, power_law_counts
from dqas_lib.budget.sensitivity import ClassCurves
from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers import frames
from dqas_lib.quantize import Selection

BARS = 24  # classes of a chart with four bars per class
COLORS = {"equal": "#bbbbbb", "error": frames.ORANGE, "class-wise": frames.GREEN, "DQAS": frames.BLUE}


@dataclass(frozen=True, eq=False)
class BudgetExplorer:
    """Counts per class by four rules, and predicted accuracy, as a budget grows; DataError when shapes disagree."""

    class_names: tuple[str, ...]
    curves: ClassCurves  # fitted learning curves, err_c(n) = a_c n^-b_c + e_c
    errors: np.ndarray  # (C,) validation errors, for the rule "error"
    caps: np.ndarray  # (C,) images there are
    budgets: tuple[int, ...]  # rising
    measured: Mapping[int, np.ndarray] = field(default_factory=dict)  # budget -> (C,) counts of a DQAS selection
    kappas: tuple[float, ...] = tuple(k / 10 for k in range(11))  # shrinking of the class-wise rule toward equal counts
    name = "class_budget"
    size = (7.4, 4.4)
    title = "Dividing a budget among the classes"
    questions = (
        "Does the class-wise rule give most to the hardest class?",
        "Set the shrinking to 1, then to 0. How far apart are the counts?",
        "How much does the class-wise rule promise over equal counts, at small and at large budgets?",
    )

    def __post_init__(self) -> None:
        c, there = len(self.class_names), sum(self.caps)
        wrong = [len(x) for x in (self.curves.a, self.errors, self.caps, *self.measured.values()) if len(x) != c]
        if wrong:
            raise DataError(f"curves, errors and counts must be of {c} classes; got {wrong[0]}: make them again")
        if not self.budgets or min(self.budgets) < 1 or max(self.budgets) > there:
            raise DataError(f"budgets must lie between 1 and the {there:,} images; got {self.budgets!r}")

    @property
    def dials(self) -> tuple[frames.Dial, ...]:
        """Budget; shrinking."""
        texts = tuple(f"{budget:,} images ({frames.percent(budget / sum(self.caps))})" for budget in self.budgets)
        start = self.kappas.index(0.5) if 0.5 in self.kappas else 0
        shrinking = frames.Dial("shrink toward equal", tuple(f"{kappa:g}" for kappa in self.kappas), start)
        return frames.Dial("budget", texts, len(texts) // 3), shrinking

    def counts(self, budget: int, kappa: float) -> dict[str, np.ndarray]:
        """Rule -> (C,) whole counts that sum to the budget."""
        rules = {
            "equal": largest_remainder((self.caps > 0).astype(float), budget, caps=self.caps),
            "error": largest_remainder(self.errors, budget, caps=self.caps),
            "class-wise": power_law_counts(self.curves.a, self.curves.b, budget, caps=self.caps, shrink=kappa),
        }
        return {**rules, "DQAS": np.asarray(self.measured[budget])} if budget in self.measured else rules

    def predicted(self, counts: np.ndarray) -> np.ndarray:
        """(C,) accuracy the curves predict at these counts, in [0, 1]; without any image that of a guess."""
        return np.clip(1 - self.curves.error(np.maximum(counts, 0.5)), 1 / len(self.class_names), 1)

    def draw(self, figure: Figure, places: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        budget, kappa, names = self.budgets[places[0]], self.kappas[places[1]], self.class_names
        rules, first, last = (self.counts(b, kappa) for b in (budget, self.budgets[0], self.budgets[-1]))
        shown = np.argsort(-self.errors, kind="stable")[:BARS]
        grid = figure.add_gridspec(2, 2, hspace=0.45, wspace=0.2)
        top, low, right = map(figure.add_subplot, (grid[0, :], grid[1, 0], grid[1, 1]))
        for place, (rule, counts) in enumerate(rules.items()):
            x = np.arange(len(shown))
            top.bar(x + 0.2 * (place - 1.5), counts[shown], 0.2, color=COLORS[rule], label=rule)
            right.plot(x, 100 * self.predicted(counts)[shown], "o", color=COLORS[rule], markersize=4.5, alpha=0.9)
        top.set_title(f"images per class, hardest class first; {budget:,} in all")
        top.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        top.legend(ncols=4, loc="upper right", bbox_to_anchor=(1, 1.22), borderaxespad=0)
        at_first, now, at_last = (100 * c["class-wise"] / c["class-wise"].sum() for c in (first, rules, last))
        moved = (now - at_first)[shown]
        low.bar(range(len(shown)), moved, color=np.where(moved >= 0, frames.GREEN, frames.PINK))
        low.axhline(0, color="black", linewidth=0.8)
        reach = max(1.0, 1.1 * np.abs([now - at_first, at_last - at_first]).max())  # so that the axis hardly moves
        low.set(title=f"class-wise, change since {self.budgets[0]:,} images (points)", ylim=(-reach, reach))
        floor = 10 * np.floor(10 * min(self.predicted(counts)[shown].min() for counts in rules.values()))
        right.set(title="predicted accuracy of the class (%)", ylim=(floor - 1, 101))
        for axes in (top, low, right):
            frames.class_ticks(axes, [names[c] for c in shown])
        means, counts = {rule: 100 * self.predicted(c).mean() for rule, c in rules.items()}, rules["class-wise"]
        return (
            f"{budget:,} images: class-wise gives {counts.max():,} to {names[counts.argmax()]} and {counts.min():,} to "
            f"{names[counts.argmin()]}. Mean accuracy the curves predict: "
            f"{', '.join(f'{rule} {mean:.1f} %' for rule, mean in means.items())}."
            f"{'' if 'DQAS' in rules else ' DQAS was not run at this budget.'}"
        )


def budget_explorer(
    images: ImageSet,
    curves: ClassCurves,
    errors: np.ndarray,
    *,
    budgets: Sequence[int] | None = None,
    selections: Sequence[Selection] = (),
) -> BudgetExplorer | frames.Missing:
    """The class-budget explorer.

    Args:
        images: The set selected from.
        curves, errors: As in `BudgetExplorer`.
        budgets: By default 16 from 2 % to 60 % of the images.
        selections: Their counts are shown as DQAS's, at their budgets.
    """

    def make() -> BudgetExplorer:
        for selection in selections:
            frames.check_pool(images, selection)
        n, counts = len(images), {len(selection): selection.class_counts for selection in selections}
        grown = np.geomspace(max(0.02 * n, images.n_classes), 0.6 * n, 16).round().astype(int)
        steps = tuple(sorted({*map(int, grown if budgets is None else budgets), *counts}))
        return BudgetExplorer(images.class_names, curves, np.asarray(errors), images.class_counts, steps, counts)

    return frames.or_sentence(BudgetExplorer, make)
