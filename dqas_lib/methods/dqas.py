"""Dataset Quantization with Active Learning based Adaptive Sampling."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.active import class_error, counts_by_error, ensemble_probabilities, margin, true_class_margin
from dqas_lib.budget import largest_remainder
from dqas_lib.errors import InputError
from dqas_lib.images import ImageSet
from dqas_lib.methods.base import Choice, Workbench
from dqas_lib.methods.dq import draw_from_bins
from dqas_lib.methods.uniform import draw_within_classes
from dqas_lib.seeds import derive, generator
from dqas_lib.training import predict, scaled

COUNTS = ("error", "equal", "free")
SAMPLES = ("margin", "true-margin", "random")


@dataclass(frozen=True)
class DQAS:
    """The budget goes where it lowers the error most. [paper, Section 3; formulas ours]

    Definition: a share `initial` of the budget is drawn from the bins; then, in `rounds` rounds, an ensemble is trained
    on what is selected so far, its error on held-out images sets the class counts (`counts`), and the candidates on
    which it hesitates most are added (`samples`). Needs: labels, features. Cost: rounds * learners short trainings
    and as many passes over the images, beside the bins.

    counts: "error" (shares follow the validation error, shrunk toward equal by `shrink`) or "free" (the sample scores
    decide over all classes). samples: "margin", "true-margin" or "random".
    """

    name: ClassVar[str] = "dqas"
    n_bins: int = 10
    initial: float = 0.3
    rounds: int = 3
    learners: int = 3
    learner_scale: float = 0.5
    counts: str = "error"
    shrink: float = 0.5
    samples: str = "margin"
    validation: float = 0.1

    def __post_init__(self) -> None:
        if self.counts not in COUNTS or self.samples not in SAMPLES:
            raise InputError(
                f"DQAS: counts is one of {', '.join(COUNTS)}, samples one of {', '.join(SAMPLES)}; "
                f"got {self.counts!r}, {self.samples!r}"
            )
        if not 0 < self.initial <= 1 or not 0 <= self.shrink <= 1 or not 0 < self.validation < 1:
            raise InputError(
                "DQAS: initial must lie in (0, 1], shrink in [0, 1], validation in (0, 1); "
                f"got {self.initial!r}, {self.shrink!r}, {self.validation!r}"
            )

    def choose(self, bench: Workbench, budget: int) -> Choice:
        """See `Method.choose`."""
        images = bench.images
        rest, held = images.hold_out(self.validation, bench.seed) if len(images) > images.n_classes else (images, None)
        candidates = images.positions(rest.ids)
        placed = min(budget, len(candidates))  # held-out images are taken last: only when nothing else is left
        bins = bench.bins(self.n_bins)
        caps = np.bincount(images.labels[candidates], minlength=images.n_classes)
        first = min(max(1, round(self.initial * placed)), placed)
        selected = draw_from_bins(bench, bins, candidates, largest_remainder(caps, first, caps=caps), use="dqas")
        round_of = np.full(len(images), -1)
        round_of[selected] = 0
        counts = [np.bincount(images.labels[selected], minlength=images.n_classes)]
        for number in range(1, self.rounds + 1):
            target = first + round((placed - first) * number / self.rounds)
            if target == len(selected):
                continue
            added = self._round(bench, number, selected, candidates, held, target, caps)
            selected = np.concatenate([selected, added])
            round_of[added] = number
            counts.append(np.bincount(images.labels[selected], minlength=images.n_classes))
        if budget > placed:
            spare = images.positions(held.ids)
            left = np.bincount(images.labels[spare], minlength=images.n_classes)
            quotas = largest_remainder(left, budget - placed, caps=left)
            selected = np.concatenate([selected, draw_within_classes(bench, spare, quotas, use="dqas, held out")])
        trace = {"bin": bins.bin, "rank": bins.rank, "round": round_of, "counts": np.stack(counts)}
        return Choice(selected, trace=trace)

    def _round(
        self,
        bench: Workbench,
        number: int,
        selected: np.ndarray,
        candidates: np.ndarray,
        held: ImageSet | None,
        target: int,
        caps: np.ndarray,
    ) -> np.ndarray:
        """Positions of the images one round adds to `selected`, so that there are `target`."""
        images = bench.images
        recipe = scaled(bench.recipe, self.learner_scale)
        logits, held_logits = [], []
        for learner in range(self.learners):
            seed = derive(bench.seed, "dqas", number, learner)
            network = bench.train(images.take(selected), seed=seed, recipe=recipe).network
            logits.append(predict(network, images.images, device=bench.device))
            if held is not None:
                held_logits.append(predict(network, held.images, device=bench.device))
        probabilities = ensemble_probabilities(np.stack(logits))
        scores = self._scores(bench, number, probabilities)
        open_ = candidates[~np.isin(candidates, selected)]
        open_ = open_[np.lexsort((images.ids[open_], scores[open_]))]  # smallest score first, ties to the lowest id
        if self.counts == "free":
            return open_[: target - len(selected)]
        have = np.bincount(images.labels[selected], minlength=images.n_classes)
        if self.counts == "equal" or held is None:
            wanted = largest_remainder(caps > 0, target, caps=caps, floors=have)
        else:
            error = class_error(ensemble_probabilities(np.stack(held_logits)), held.labels, images.n_classes)
            wanted = counts_by_error(error, have, target, caps, self.shrink)
        added = wanted - have
        return np.concatenate([open_[images.labels[open_] == label][: added[label]] for label in range(len(added))])

    def _scores(self, bench: Workbench, number: int, probabilities: np.ndarray) -> np.ndarray:
        """(N,) what the images are ranked by, smallest first."""
        if self.samples == "margin":
            return margin(probabilities)
        if self.samples == "true-margin":
            return np.abs(true_class_margin(probabilities, bench.images.labels))
        return generator(bench.seed, "dqas samples", number).random(len(bench.images))
