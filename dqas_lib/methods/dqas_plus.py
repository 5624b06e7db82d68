"""DQAS-plus: a difficulty window that slides with the ratio, our best version on validation data [ours]."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, GroupMethod, draw_within_classes, quotas, register
from dqas_lib.methods.geometry import Herding
from dqas_lib.pool import DYNAMICS, Pool
from dqas_lib.training.dynamics import area_under_margin


@register
@dataclass(frozen=True)
class DQASPlus:
    """Neither the easiest nor the hardest images, and of the others a set that stands for all of them [ours].

    Definition: one network is trained on all the images, with progressive resizing at the smallest side. An image's
    difficulty is the margin of its class, averaged over checkpoints. Within each class the easiest and the hardest are
    left out, at a smaller ratio more of the hard ones, and `inside` picks from the rest. Needs: labels. Cost: a
    training half as long as the final one, and a pass over the images per checkpoint, once for all ratios.

    Args:
        easy, hard: Fractions of each class left out at either end; None: by the class and the ratio (`window`).
        inside: What picks within the window, class by class: a method such as `Herding`, or None: at random.
        checkpoints, scale: Looks at all the images, and the factor on the length of the recipe.

    Raises:
        InputError: For numbers out of range; as it selects, for fractions that leave fewer images than the budget.
    """

    name: ClassVar[str] = "dqas-plus"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "dynamics")
    easy: float | None = None
    hard: float | None = None
    inside: GroupMethod | None = field(default_factory=Herding)
    checkpoints: int = 8
    scale: float = 0.5

    def __post_init__(self) -> None:
        for name in ("easy", "hard"):
            if (value := getattr(self, name)) is not None:
                number(f"DQASPlus: {name}", value, 0, 1, ends="[)")
        if self.inside is not None and not isinstance(self.inside, GroupMethod):
            raise InputError(f"DQASPlus: inside is a method such as Herding(), or None; got {self.inside!r}")
        whole_number("DQASPlus: checkpoints", self.checkpoints)
        number("DQASPlus: scale", self.scale, 0, ends="()")

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,), the mean margin; window (N,), whether an image was in it."""
        pool.check(self)
        images, counts = pool.images, quotas(pool, budget, "proportional")
        with_logits = bool({"logits", "gradients"} & {*getattr(self.inside, "needs", ())})
        dynamics = pool.dynamics(scale=self.scale, checkpoints=self.checkpoints, small=True, with_logits=with_logits)
        shared = {name: dynamics[name] for name in ("features", "logits", *DYNAMICS) if name in dynamics}
        looked_at = replace(pool, given=shared)
        score = area_under_margin(dynamics["margin"])
        inside, positions = np.zeros(len(images), dtype=bool), []
        for label in np.flatnonzero(counts):
            rows = pool.by_id[images.labels[pool.by_id] == label]
            easy, hard = window(score[rows], counts[label] / len(rows))
            easy, hard = easy if self.easy is None else self.easy, hard if self.hard is None else self.hard
            n_hard, n_easy = round(hard * len(rows)), round(easy * len(rows))
            if self.easy is None:  # a small class, whose window rounding has made too narrow
                n_easy = min(n_easy, max(0, len(rows) - n_hard - counts[label]))
            if self.hard is None:
                n_hard = min(n_hard, max(0, len(rows) - n_easy - counts[label]))
            if len(rows) - n_easy - n_hard < counts[label]:
                raise InputError(
                    f"DQASPlus: without the easiest {easy:.0%} and the hardest {hard:.0%}, class "
                    f"{images.class_names[label]!r} has {max(0, len(rows) - n_easy - n_hard)} images, and "
                    f"{counts[label]} are asked for: give smaller fractions, or None"
                )
            ranks = np.argsort(np.argsort(score[rows], kind="stable"))  # 0: the hardest
            rows = rows[(ranks >= n_hard) & (ranks < len(rows) - n_easy)]
            inside[rows] = True
            if self.inside is not None:
                positions.append(rows[self.inside.pick(looked_at, rows, int(counts[label]))])
        if self.inside is None:
            positions = [draw_within_classes(pool, np.flatnonzero(inside), counts, use="dqas-plus")]
        return Choice(np.concatenate(positions), trace={"score": score, "window": inside})


def window(margins: np.ndarray, ratio: float) -> tuple[float, float]:
    """Fractions of a class left out as too easy and as too hard, in [0, 1] and together at most 1 - ratio [ours].

    Of the images that the training learned, with a mean margin >= 0, the easier half; of the others the fraction
    0.03 / ratio of the hardest, at most three quarters: a small set cannot teach what a full training did not learn.
    So the window follows the data: it leaves out more hard images where many are, and more easy ones where most are.

    Args:
        margins: (n,) mean margins of the class.
        ratio: Fraction of the class that is selected, in (0, 1].
    """
    learned = float((margins >= 0).mean())
    easy, hard = 0.5 * learned, min(0.75, 0.03 / ratio) * (1 - learned)
    room = min(1.0, (1 - ratio) / max(easy + hard, 1e-12))
    return easy * room, hard * room
