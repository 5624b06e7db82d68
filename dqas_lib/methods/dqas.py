"""Dataset Quantization with Active Learning based Adaptive Sampling: the method, stage by stage."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from dqas_lib.active.counts import Counts, EqualCounts, FreeCounts, GainCounts
from dqas_lib.active.estimators import Kernel, RandomSamples, TrueMargin
from dqas_lib.active.round import Estimator, Rounds, View
from dqas_lib.active.sampling import pick
from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.budget.initialization import Curves, Initialization, Proportional
from dqas_lib.core.checks import check_fields, number, one_of, whole_number
from dqas_lib.core.digests import digest
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import derive, generator
from dqas_lib.methods.base import Choice, draw_from_bins, draw_within_classes, options, parts, register
from dqas_lib.pool import Pool
from dqas_lib.training.features import predict
from dqas_lib.training.probabilities import class_error, softmax

# what each part must be, and how to give one
PARTS: dict[str, tuple[Any, str]] = {
    "initialization": (Initialization, "Curves() or Proportional()"),
    "rounds": (Rounds | None, "Rounds(), or None for no active rounds"),
    "counts": (Counts, "GainCounts(Kernel()) or ErrorCounts()"),
    "samples": (Estimator, "Kernel(), Margin() or RandomSamples()"),
}
# what stands in for a part that is switched off
PLAIN_PARTS: dict[str, Any] = {
    "patchify": "none",
    "bins": None,
    "initialization": Proportional(),
    "rounds": None,
    "counts": EqualCounts(),
    "samples": RandomSamples(),
}


@register
@dataclass(frozen=True)
class DQAS:
    """The budget goes where it lowers the error most [abstract, arXiv:2407.07268; formulas ours].

    Definition: the patches of all images are dropped and reconstructed first; GraphCut bins are made in the feature
    space of the reconstructed images; class-wise initialization sets the class counts of an initial set from the
    classes' sensitivity; then, in active rounds, learners are trained on what is selected so far, and an estimator of
    the expected error reduction sets the class counts and picks the samples. Needs: labels; features for bins.
    Cost: the pilots, rounds * learners short trainings and as many passes over the images, beside stage 1 and the bins.
    Rounds are kept in the pool's store: a stopped selection goes on from them, and a larger budget too.

    Args:
        patchify: When patches are dropped, unless `quantize` is told otherwise: "first", "last" or "none".
        initialization: Class counts of the initial set: `Curves`, `ByError`, `Equal` or `Proportional`.
        initial_ratio: Of the pool's images, in (0, 1], that the initial set takes.
        bins: Per class, that the initial set is drawn from; None draws it at random within the classes.
        rounds: `Rounds`; None draws the whole budget as the initial set.
        counts: Class counts after a round: `GainCounts`, `ErrorCounts`, `EqualCounts` or `FreeCounts`.
        samples: What rates images: an estimator, of `active.ESTIMATORS` or your own, or `RandomSamples`.
        diversity: Exponent >= 0 of the distance in `active.sampling.spread`; 0 ranks by the estimate alone.
        labels: "known"; "expected" treats the pool as unlabeled: the initial set is drawn at random from all of it, and
            the estimators take the expectation over labels.
        validation: Fraction of the images held out for every decision; they are selected when nothing else is left.
        shuffle_counts: A control: what is found about a class is used for another.

    Raises:
        InputError: For parts that are none, numbers out of range, or an unlabeled pool with parts that need labels.
    """

    name: ClassVar[str] = "dqas"
    needs: ClassVar[tuple[str, ...]] = ("labels", "network")
    patchify: str = "first"
    initialization: Initialization = field(default_factory=Curves)
    initial_ratio: float = 0.0125
    bins: int | None = 10
    rounds: Rounds | None = field(default_factory=Rounds)
    counts: Counts = field(default_factory=lambda: GainCounts(Kernel()))
    samples: Estimator = field(default_factory=Kernel)
    diversity: float = 2.0
    labels: str = "known"
    validation: float = 0.1
    shuffle_counts: bool = False

    def __post_init__(self) -> None:
        for name, (kind, such_as) in PARTS.items():
            part = getattr(self, name)
            if isinstance(part, type) or not isinstance(part, kind):
                raise InputError(f"DQAS: {name} is an object such as {such_as}; got {part!r}")
        check_fields(self)
        if getattr(self.samples, "classes_only", False):
            raise InputError(f"DQAS: estimator {self.samples.name!r} rates classes, not samples: use it in GainCounts")
        one_of("DQAS: patchify", self.patchify, ("first", "last", "none"))
        number("DQAS: initial_ratio", self.initial_ratio, 0, 1, ends="(]")
        number("DQAS: validation", self.validation, 0, 1, ends="()")
        number("DQAS: diversity", self.diversity, 0)
        one_of("DQAS: labels", self.labels, ("known", "expected"))
        if self.bins is not None:
            whole_number("DQAS: bins", self.bins)
        free = isinstance(self.counts, FreeCounts) and not isinstance(self.samples, TrueMargin)
        if self.labels == "expected" and not free:
            raise InputError(
                "DQAS: an unlabeled pool (labels='expected') has no classes to count, and no true class: it needs "
                f"counts=FreeCounts() and samples other than TrueMargin(); got {self.counts!r}, {self.samples!r}"
            )

    def without(self, *names: str) -> "DQAS":
        """The same method with these parts switched off: any of PLAIN_PARTS, which says what stands in for each."""
        return replace(self, **{one_of("part of DQAS", name, PLAIN_PARTS): PLAIN_PARTS[name] for name in names})

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`.

        Trace: round of every image (0 the initial set, -1 not selected), and its bin and rank; counts (rounds + 1, C)
        after each round; scores (rounds, N) of the candidates, else NaN; gains (rounds, C).
        """
        pool.check(self)
        images, rounds = pool.images, self.rounds or Rounds()

        # Validation images make every decision; they are selected when nothing else is left. In the order of ids, as
        # ties go to the lowest.
        rest, held = images.hold_out(self.validation, pool.seed)
        candidates, validation = images.positions(np.sort(rest.ids)), images.positions(np.sort(held.ids))
        total = min(budget, len(candidates))
        active = self.rounds is not None and total < len(candidates)
        targets = rounds.targets(self.initial_ratio, len(images), total) if active else [total]

        # The initial set: counts by class-wise initialization, images from the bins.
        initial, trace = self._initial_set(pool, candidates, validation, targets[0])
        selected, stages = [initial], []

        # Active rounds, each kept in the store under the method and what was selected before it.
        code, train = tuple(type(part) for part in parts(self)), partial(_train, pool, rounds.learner_scale)
        for index, target in enumerate(targets[1:], start=1):
            before = np.concatenate(selected)
            left = candidates[~np.isin(candidates, before)]
            known = self.labels == "known"
            view = View(images, before, left, validation, pool.seed, index, rounds.learners, train, known)
            key = {"method": options(self), "round": index, "target": target, "selected": digest(before.tobytes())}
            stages.append(pool.stage("round", key, partial(self._round, view, target), code))
            selected.append(stages[-1]["added"])

        if budget > total:
            quotas = largest_remainder(held.class_counts, budget - total, caps=held.class_counts)
            added = draw_within_classes(pool, validation, quotas, use="dqas, held out")
            selected[-1] = np.concatenate([selected[-1], added])
        round_of, new = np.full(len(images), -1), np.zeros((len(selected), images.n_classes), dtype=np.int64)
        for index, positions in enumerate(selected):
            round_of[positions] = index
            new[index] = np.bincount(images.labels[positions], minlength=images.n_classes)
        scores = np.array([stage["scores"] for stage in stages], np.float32).reshape(-1, len(images))
        gains = np.array([stage["gains"] for stage in stages]).reshape(-1, images.n_classes)
        trace |= {"round": round_of, "counts": new.cumsum(axis=0), "scores": scores, "gains": gains}
        return Choice(np.concatenate(selected), trace=trace)

    def _initial_set(
        self, pool: Pool, candidates: np.ndarray, validation: np.ndarray, total: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Positions of the initial set, and the bins' part of the trace."""
        if self.labels == "expected":
            return generator(pool.seed, "dqas", "unlabelled").permutation(candidates)[:total], {}
        sizes = np.bincount(pool.images.labels[candidates], minlength=pool.images.n_classes)
        pilots = partial(_run_pilots, pool, candidates, validation) if len(validation) else None
        weights = self._dealt(self.initialization.shares(sizes, total, pilots), pool.seed)
        counts = largest_remainder(weights, total, caps=sizes)
        if self.bins is None:
            return draw_within_classes(pool, candidates, counts, use="dqas"), {}
        bins = pool.bins(self.bins)
        return draw_from_bins(pool, bins, candidates, counts, use="dqas"), {"bin": bins.bin, "rank": bins.rank}

    def _round(self, view: View, target: int) -> dict[str, np.ndarray]:
        """Train learners, estimate the error reduction, set the class counts, pick the samples.

        Gives added: positions; scores: (N,) of the candidates, else NaN; gains: (C,) that set the counts.
        """
        scores, gains = np.full(len(view.labels), np.nan, np.float32), np.full(view.n_classes, np.nan)
        added, n_new = [view.selected[:0]], target - len(view.selected)
        if n_new:
            estimate = self.samples(view)
            utility = np.asarray(estimate.samples)
            if utility.shape != view.candidates.shape:
                raise InputError(f"estimator {self.samples.name!r} gave {utility.shape}, not a number per candidate")
            scores[view.candidates] = utility
        if n_new and not view.labels_known:
            added.append(pick(view, utility, view.candidates, n_new, self.diversity))
        elif n_new:
            best = view.candidates[np.argsort(-utility, kind="stable")[:n_new]]
            asked = replace(view, samples_wanted=False)
            weights, gains = self.counts.divide(view, best, lambda by: estimate if by == self.samples else by(asked))
            labels = view.labels[view.candidates]
            sizes = view.counts + np.bincount(labels, minlength=view.n_classes)
            weights = self._dealt(np.where(sizes > 0, weights, 0), view.pool_seed)
            wanted = largest_remainder(weights, target, caps=sizes, floors=view.counts) - view.counts
            for label in np.flatnonzero(wanted):
                members = view.candidates[labels == label]
                added.append(pick(view, scores[members], members, int(wanted[label]), self.diversity))
        return {"added": np.concatenate(added), "scores": scores, "gains": gains}

    def _dealt(self, weights: np.ndarray, seed: int) -> np.ndarray:
        """The weights, or with `shuffle_counts` the weights dealt to other classes (each one to another)."""
        order = generator(seed, "dqas", "shuffled counts").permutation(len(weights))
        dealt = np.empty_like(weights)
        dealt[order] = weights[np.roll(order, 1)]
        return dealt if self.shuffle_counts else weights


def _train(pool: Pool, scale: float, positions: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, d) features and (N, C) logits by a learner trained on these images."""
    outputs = pool.outputs(pool.train(pool.images.take(positions), seed=seed, scale=scale).network)
    return outputs["features"], outputs["logits"]


def _run_pilots(
    pool: Pool, candidates: np.ndarray, validation: np.ndarray, ratios: tuple[float, ...], seeds: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """(R, C) sizes of class-balanced random subsets, and (S, R, C) validation errors; kept in the store."""
    labels, n_classes = pool.images.labels, pool.images.n_classes
    caps, n = np.bincount(labels[candidates], minlength=n_classes), len(candidates)
    sizes = np.array([largest_remainder(caps > 0, max(1, round(ratio * n)), caps=caps) for ratio in ratios])

    def errors(ratio: float, counts: np.ndarray, run: int) -> np.ndarray:
        seed = derive(pool.seed, "dqas pilot", str(ratio), run)
        subset = draw_within_classes(replace(pool, seed=seed), candidates, counts, use="pilot")
        network = pool.train(pool.images.take(subset), seed=seed, scale=scale).network
        logits = predict(network, pool.images.images[validation], device=pool.setting.device)
        return class_error(softmax(logits), labels[validation], n_classes)

    def compute() -> dict[str, np.ndarray]:
        rows = list(zip(ratios, sizes, strict=True))
        return {"errors": np.array([[errors(*row, run) for row in rows] for run in range(seeds)])}

    key = {"ratios": ratios, "seeds": seeds, "scale": scale, "validation": digest(validation.tobytes())}
    return sizes, pool.stage("pilots", key, compute, (DQAS,))["errors"]
