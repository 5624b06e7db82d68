"""Dataset Quantization with Active Learning based Adaptive Sampling."""

import dataclasses
import json
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from dqas_lib.active.estimators import ESTIMATORS, get_estimator
from dqas_lib.active.round import Estimate, Learners, View
from dqas_lib.active.sampling import shares_by_gain, shrunk, spread
from dqas_lib.bins.bins import Bins
from dqas_lib.budget.class_counts import largest_remainder, power_law_counts
from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import derive, generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.base import Choice, draw_from_bins, draw_within_classes, options, register
from dqas_lib.pool import Pool
from dqas_lib.training.features import extract
from dqas_lib.training.probabilities import class_error

INITIALIZATIONS = ("equal", "proportional", "error", "curves")


DRAWS = ("bins", "random")


COUNTS = ("error", "free", "equal", "margin", "ridge", "gradient", "retrain")


SAMPLES = ("margin", "true-margin", "ridge", "gradient", "random")


LABELS = ("known", "expected")


@register
@dataclass(frozen=True)
class DQAS:
    """The budget goes where it lowers the error most. [paper, Section 3; formulas ours]

    Definition: class-wise initialization sets the counts of a first share `initial` of the budget; then, in `rounds`
    rounds, `learners` networks are trained on what is selected so far, one estimator sets the class counts and another
    the samples. Needs: labels; features for draw="bins". Cost: rounds * learners short trainings and as many passes
    over the images, beside the bins and the pilots.

    initialization: "equal", "proportional" (to the class sizes), "error" (to a pilot's validation error) or "curves"
    (the power-law formula of `budget.power_law_counts`, from pilots at `pilot_ratios`, `pilot_seeds` of each).
    draw: the first share comes from the bins, or at "random". active: False draws the whole budget that way.
    counts: "error" (shares follow the validation error), "free" (the images that score best over all classes), "equal",
    or an estimator of `active.ESTIMATORS` (counts that even out the classes' gains); all but "free" are shrunk toward
    equal by `shrink`. shuffle_counts: a control, what is found about the classes is dealt to other classes.
    samples: an estimator that scores images, or "random"; diversity: exponent of the distance in `active.spread`.
    labels: "expected" treats the pool as unlabeled: the first share is drawn at random from all of it, counts are
    free, and the estimators take the expectation over labels. validation: the share of the images held out for every
    decision; they are selected last, when nothing else is left. run: a name for the state kept in the store after every
    round, by which a stopped run goes on; without a name the settings are the name.
    """

    name: ClassVar[str] = "dqas"
    needs: ClassVar[tuple[str, ...]] = ("labels", "network")
    n_bins: int = 10
    initial: float = 0.2
    initialization: str = "proportional"
    draw: str = "bins"
    active: bool = True
    rounds: int = 5
    learners: int = 2
    learner_scale: float = 0.4
    counts: str = "error"
    shrink: float = 0.5
    shuffle_counts: bool = False
    samples: str = "margin"
    diversity: float = 0.1
    labels: str = "known"
    validation: float = 0.1
    pilot_ratios: tuple[float, ...] = (0.05, 0.1, 0.2)
    pilot_seeds: int = 2
    run: str | None = None

    def __post_init__(self) -> None:
        for name, known in (
            ("initialization", INITIALIZATIONS),
            ("draw", DRAWS),
            ("counts", COUNTS),
            ("samples", SAMPLES),
            ("labels", LABELS),
        ):
            if getattr(self, name) not in known:
                raise InputError(f"DQAS: {name} is one of {', '.join(known)}; got {getattr(self, name)!r}")
        if not 0 < self.initial <= 1 or not 0 <= self.shrink <= 1 or not 0 < self.validation < 1 or self.diversity < 0:
            raise InputError(
                "DQAS: initial must lie in (0, 1], shrink in [0, 1], validation in (0, 1), diversity must be >= 0; "
                f"got {self.initial!r}, {self.shrink!r}, {self.validation!r}, {self.diversity!r}"
            )
        if min(self.n_bins, self.rounds, self.learners, self.pilot_seeds) < 1 or not self.learner_scale > 0:
            raise InputError(
                "DQAS: n_bins, rounds, learners and pilot_seeds must be at least 1, learner_scale above 0; got "
                f"{self.n_bins!r}, {self.rounds!r}, {self.learners!r}, {self.pilot_seeds!r}, {self.learner_scale!r}"
            )
        if len(set(self.pilot_ratios)) < 2 or not all(0 < ratio <= 1 for ratio in self.pilot_ratios):
            raise InputError(f"DQAS: pilot_ratios are at least two ratios in (0, 1]; got {self.pilot_ratios!r}")
        if self.labels == "expected" and (self.counts != "free" or self.samples == "true-margin"):
            raise InputError(
                "DQAS: an unlabeled pool (labels='expected') has no classes to count, and no true class: it needs "
                f"counts='free' and samples other than 'true-margin'; got {self.counts!r}, {self.samples!r}"
            )

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: bin, rank and round (0 the first share, -1 not chosen) of every image; counts
        (rounds + 1, C) after each round; scores (rounds, N) of the candidates, else NaN; gains (rounds, C)."""
        pool.check(self)
        stage = _Stage.prepare(self, pool, budget)
        state = stage.load() or stage.start()
        for number in range(len(state.counts), stage.rounds + 1):
            state = stage.round(state, number)
            stage.keep(state)
        return stage.finish(state)


@dataclass(frozen=True, eq=False)
class _State:
    """What is known after a round: selected positions in order, their rounds, counts, scores and gains by round."""

    selected: np.ndarray
    round: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    gains: np.ndarray

    def extended(self, added: np.ndarray, number: int, counts: np.ndarray, scores: np.ndarray, gains: np.ndarray):
        return _State(
            np.concatenate([self.selected, added]),
            np.concatenate([self.round, np.full(len(added), number)]),
            np.vstack([self.counts, counts]),
            np.vstack([self.scores, scores]),
            np.vstack([self.gains, gains]),
        )


@dataclass(frozen=True, eq=False)
class _Stage:
    """A selection under way: the method, the pool, and who may be chosen.

    candidates: positions that may be selected; held: validation positions; placed: how many candidates to select, the
    rest of the budget being held-out images; first: the size of the first share; caps: (C,) candidates a class.
    """

    method: DQAS
    pool: Pool
    budget: int
    candidates: np.ndarray
    held: np.ndarray
    placed: int
    first: int
    caps: np.ndarray
    rounds: int

    @classmethod
    def prepare(cls, method: DQAS, pool: Pool, budget: int) -> "_Stage":
        images = pool.images
        rest, held = images.hold_out(method.validation, pool.seed)
        candidates, validation = images.positions(np.sort(rest.ids)), images.positions(np.sort(held.ids))
        placed = min(budget, len(candidates))
        active = method.active and placed < len(candidates)
        first = min(max(1, round(method.initial * placed)), placed) if active else placed
        caps = np.bincount(images.labels[candidates], minlength=images.n_classes)
        rounds = method.rounds if active else 0
        return cls(method, pool, budget, candidates, validation, placed, first, caps, rounds)

    # ------------------------------------------------------------------------------------------ kept in the store

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.pool.key, "method": options(replace(self.method, run=None)), "budget": self.budget}

    code = (DQAS, Pool)

    @property
    def key(self) -> dict[str, Any]:
        return self.settings if self.method.run is None else {"run": self.method.run}

    def load(self) -> _State | None:
        """The state a stopped run left in the store; InputError when a run of that name had other settings."""
        if self.pool.setting.store is None:
            if self.method.run is not None:
                raise InputError(f"DQAS: run {self.method.run!r} can be kept in a store only: give store=Store(folder)")
            return None
        found = self.pool.setting.store.get("rounds", self.key, self.code)
        if found is None:
            return None
        before, now = json.loads(str(found["settings"])), json.loads(json.dumps(self.settings))
        if before != now:
            differing = sorted(_flat(before).items() ^ _flat(now).items())
            names = list(dict.fromkeys(name for name, _ in differing))
            raise InputError(
                f"DQAS: run {self.method.run!r} was started with other settings: "
                f"{_shown(_flat(before), names)}; now {_shown(_flat(now), names)}. "
                "Go on with the settings it was started with, or give another run name"
            )
        return _State(**{field.name: found[field.name] for field in dataclasses.fields(_State)})

    def keep(self, state: _State) -> None:
        """Write the state to the store, where there is one."""
        if self.pool.setting.store is not None:
            arrays = {field.name: getattr(state, field.name) for field in dataclasses.fields(_State)}
            arrays["settings"] = np.array(json.dumps(self.settings))
            self.pool.setting.store.put(
                "rounds", self.key, arrays, seconds=0.0, device=self.pool.key["device"], code=self.code
            )

    # ------------------------------------------------------------------------------------------ the first share

    @property
    def bins(self) -> Bins | None:
        return self.pool.bins(self.method.n_bins) if self.method.draw == "bins" else None

    def start(self) -> _State:
        """Class-wise initialization, and the first share of the images."""
        images, method = self.pool.images, self.method
        if method.labels == "expected":
            selected = generator(self.pool.seed, "dqas", "unlabelled").permutation(self.candidates)[: self.first]
        else:
            counts = largest_remainder(self._dealt(self._initial_shares()), self.first, caps=self.caps)
            if method.draw == "bins":
                selected = draw_from_bins(self.pool, self.bins, self.candidates, counts, use="dqas")
            else:
                selected = draw_within_classes(self.pool, self.candidates, counts, use="dqas")
        return _State(
            selected,
            np.zeros(len(selected), dtype=np.int64),
            np.bincount(images.labels[selected], minlength=images.n_classes)[None],
            np.zeros((0, len(images)), dtype=np.float32),
            np.zeros((0, images.n_classes)),
        )

    def _initial_shares(self) -> np.ndarray:
        """(C,) shares of the first part of the budget."""
        method = self.method
        if method.initialization == "equal":
            return (self.caps > 0).astype(float)
        if method.initialization == "proportional" or not len(self.held):
            return self.caps.astype(float)
        sizes, errors = self._pilots()
        if method.initialization == "error":
            return np.where(self.caps > 0, shrunk(errors[-1].mean(axis=0), method.shrink), 0)
        curves = fit_curves(sizes, errors.transpose(1, 0, 2))
        return power_law_counts(curves.a, curves.b, self.first, caps=self.caps, shrink=method.shrink).astype(float)

    def _pilots(self) -> tuple[np.ndarray, np.ndarray]:
        """(R, C) sizes and (R, seeds, C) validation errors of learners trained on class-balanced random subsets."""
        images, method = self.pool.images, self.method
        sizes, errors = [], []
        for ratio in sorted(method.pilot_ratios):
            total = max(1, round(ratio * len(self.candidates)))
            counts = largest_remainder(self.caps > 0, total, caps=self.caps)
            runs = []
            for pilot in range(method.pilot_seeds):
                seed = derive(self.pool.seed, "dqas pilot", str(ratio), pilot)
                subset = draw_within_classes(replace(self.pool, seed=seed), self.candidates, counts, use="pilot")
                logits = self._train(subset, seed)[1][self.held]
                probabilities = Learners(np.zeros((1, 1, 1)), logits[None], ()).probabilities
                runs.append(class_error(probabilities, images.labels[self.held], images.n_classes))
            sizes.append(counts)
            errors.append(runs)
        return np.asarray(sizes), np.asarray(errors)

    def _dealt(self, values: np.ndarray) -> np.ndarray:
        """The values, or with `shuffle_counts` the values dealt to other classes (each one to another)."""
        if not self.method.shuffle_counts:
            return values
        order = generator(self.pool.seed, "dqas", "shuffled counts").permutation(len(values))
        dealt = np.empty_like(values)
        dealt[order] = values[np.roll(order, 1)]
        return dealt

    # ------------------------------------------------------------------------------------------ the rounds

    def _train(self, positions: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(N, d) features and (N, C) logits by a learner trained on some images."""
        pool = self.pool
        network = pool.train(pool.images.take(positions), seed=seed, scale=self.method.learner_scale).network
        features = extract(network, pool.images.images, device=pool.setting.device)
        head = network.head
        return features, features @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()

    def _learners(self, selected: np.ndarray, number: int, *, folds: bool) -> Learners:
        """Learners trained on `selected`, or with `folds` each on all but its own fold of it, stratified by class."""
        features, logits, fit = [], [], []
        use = "cross-fitted" if folds else "learner"
        fold = _folds(self.pool.images.take(selected), max(2, self.method.learners), self.pool.seed)
        for learner in range(max(2, self.method.learners) if folds else self.method.learners):
            inside = fold == learner if folds else np.zeros(len(selected), dtype=bool)
            if inside.all() or not inside.any():
                inside[:] = False  # too few images to leave any out
            found = self._train(selected[~inside], derive(self.pool.seed, "dqas", number, use, learner))
            features.append(found[0])
            logits.append(found[1])
            fit.append(selected[inside] if inside.any() else selected)
        return Learners(np.stack(features), np.stack(logits), tuple(fit))

    def _view(self, selected: np.ndarray, number: int) -> View:
        images, made = self.pool.images, {}

        def learners(folds: bool) -> Learners:
            if folds not in made:
                made[folds] = self._learners(selected, number, folds=folds)
            return made[folds]

        def retrained(positions: np.ndarray, run: int) -> float:
            logits = self._train(positions, derive(self.pool.seed, "dqas", number, "retrain"))[1][self.held]
            shifted = logits - logits.max(axis=1, keepdims=True)
            own = shifted[np.arange(len(logits)), images.labels[self.held]]
            return float((np.log(np.exp(shifted).sum(axis=1)) - own).mean())

        open_ = self.candidates[
            ~np.isin(self.candidates, selected)
        ]  # in the order of ids, to the lowest of which ties go
        return View(
            labels=images.labels,
            n_classes=images.n_classes,
            selected=selected,
            candidates=open_,
            held=self.held,
            seed=derive(self.pool.seed, "dqas", number),
            ensemble=partial(learners, False),
            cross_fitted=partial(learners, True),
            retrained=retrained,
            labels_known=self.method.labels == "known",
        )

    def round(self, state: _State, number: int) -> _State:
        """Train, estimate, set the counts, pick the samples."""
        started = time.perf_counter()
        images = self.pool.images
        target = self.first + round((self.placed - self.first) * number / self.rounds)
        scores = np.full(len(images), np.nan, dtype=np.float32)
        n_new = target - len(state.selected)
        if not n_new:
            return state.extended(
                state.selected[:0], number, state.counts[-1:], scores, np.full(images.n_classes, np.nan)
            )
        view = self._view(state.selected, number)
        estimates: dict[str, Estimate] = {}

        def estimate(name: str) -> Estimate:
            if name not in estimates:
                seen = replace(view, samples_wanted=name == self.method.samples)
                estimates[name] = get_estimator(name)(seen)
            return estimates[name]

        if self.method.samples == "random":
            worth = generator(self.pool.seed, "dqas samples", number).random(len(view.candidates))
        else:
            worth = estimate(self.method.samples).samples
        scores[view.candidates] = worth
        if self.method.labels == "expected":
            added, gains = self._pick(view, worth, view.candidates, n_new), np.full(images.n_classes, np.nan)
        else:
            wanted, gains = self._counts(view, estimate, worth, target)
            parts = []
            for label in np.flatnonzero(wanted - view.counts):
                members = view.candidates[images.labels[view.candidates] == label]
                parts.append(self._pick(view, scores[members], members, int(wanted[label] - view.counts[label])))
            added = np.concatenate(parts)
        selected = np.concatenate([state.selected, added])
        counts = np.bincount(images.labels[selected], minlength=images.n_classes)
        self.pool.seconds["rounds"] = self.pool.seconds.get("rounds", 0.0) + time.perf_counter() - started
        return state.extended(added, number, counts, scores, gains)

    def _counts(self, view: View, estimate, worth: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
        """(C,) counts after the round, never below what is selected, and (C,) what they were decided on."""
        have, rule = view.counts, self.method.counts
        if rule in ESTIMATORS:
            gains = estimate(rule).classes
            weights = shrunk(shares_by_gain(gains, have), self.method.shrink)
        elif rule == "free":
            best = view.candidates[np.argsort(-worth, kind="stable")[: target - len(view.selected)]]
            gains = np.bincount(view.labels[best], minlength=view.n_classes).astype(float)
            weights = have + gains
        elif rule == "error" and len(view.held):
            probabilities = view.ensemble().probabilities[view.held]
            gains = class_error(probabilities, view.labels[view.held], view.n_classes)
            weights = shrunk(gains, self.method.shrink)
        else:
            gains = np.ones(view.n_classes)
            weights = gains
        weights = np.where(self.caps > 0, weights, 0)
        return largest_remainder(self._dealt(weights), target, caps=self.caps, floors=have), gains

    def _pick(self, view: View, worth: np.ndarray, members: np.ndarray, n_picks: int) -> np.ndarray:
        """The n_picks members that are worth most, spread out."""
        if self.method.diversity == 0:
            return members[np.argsort(-worth, kind="stable")[:n_picks]]
        features = view.ensemble().features[0]
        taken = view.selected
        if view.labels_known:
            taken = taken[np.isin(view.labels[taken], view.labels[members])]
        rank = worth
        if worth.min() < 0:  # reductions of an estimator: only their order is used
            rank = np.argsort(np.argsort(worth, kind="stable"), kind="stable") / len(worth)
        return members[spread(rank, features[members], n_picks, features[taken], self.method.diversity)]

    # ------------------------------------------------------------------------------------------ the end

    def finish(self, state: _State) -> Choice:
        """Held-out images, when nothing else is left, and the trace."""
        images = self.pool.images
        selected, counts = state.selected, state.counts.copy()
        round_of = np.full(len(images), -1)
        round_of[selected] = state.round
        if self.budget > self.placed:
            left = np.bincount(images.labels[self.held], minlength=images.n_classes)
            quotas = largest_remainder(left, self.budget - self.placed, caps=left)
            spare = draw_within_classes(self.pool, self.held, quotas, use="dqas, held out")
            round_of[spare] = self.rounds
            counts[-1] += quotas
            selected = np.concatenate([selected, spare])
        trace = {"round": round_of, "counts": counts, "scores": state.scores, "gains": state.gains}
        bins = self.bins
        if bins is not None:
            trace |= {"bin": bins.bin, "rank": bins.rank}
        return Choice(selected, trace=trace)


def _folds(images: ImageSet, n_folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each image, dealt class by class, so that folds differ by at most one image a class."""
    fold = np.empty(len(images), dtype=np.int64)
    for label in range(images.n_classes):
        members = np.flatnonzero(images.labels == label)
        members = members[np.argsort(images.ids[members], kind="stable")]
        rng = generator(seed, "dqas folds", label)
        fold[rng.permutation(members)] = (np.arange(len(members)) + rng.integers(n_folds)) % n_folds
    return fold


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and printed values."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value)
    return flat


def _shown(settings: dict[str, str], names: list[str]) -> str:
    return ", ".join(f"{name} = {settings.get(name, 'absent')}" for name in names)
