"""Stage 5, active rounds: which classes, and which samples, lower the validation error most.

[paper, Section 3.3: sample where the expected error reduction is largest; every formula here is ours]
A round trains learners on what is selected so far, shows them the candidates and the held-out images, and asks an
estimator for two things: how much each candidate would lower the validation error, and how much an average image of
each class would. Class counts and samples are separate decisions made from such estimates.

In compression the labels are known, so Roy and McCallum's expectation over labels [ICML 2001] collapses to the label at
hand; `View.labels_known = False` keeps the true expectation, for a pool without labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from dqas_lib.errors import InputError
from dqas_lib.features import unit_rows
from dqas_lib.seeds import generator

# ---------------------------------------------------------------------------------------------- probabilities


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def ensemble_probabilities(logits: np.ndarray) -> np.ndarray:
    """(L, N, C) logits of L learners -> (N, C) mean probabilities."""
    return np.exp(log_softmax(logits)).mean(axis=0)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """(N,) difference of the two largest probabilities: small where the learner hesitates. One class: 1."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)
    return top[:, -1] - top[:, -2]


def true_class_margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) probability of the true class minus the largest other: negative where the learner is wrong."""
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1.0
    return probabilities[rows, labels] - others.max(axis=1)


def class_error(probabilities: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) mean probability that is missing at the true class; the overall mean for a class without images.

    Smoother than 1 - recall: on few validation images, counts of mistakes are mostly noise.
    """
    missing = 1 - probabilities[np.arange(len(labels)), labels]
    return class_means(missing, labels, n_classes, otherwise=missing.mean() if len(missing) else 1.0)


def class_means(values: np.ndarray, labels: np.ndarray, n_classes: int, *, otherwise: float) -> np.ndarray:
    """(C,) mean of (N,) values within each class; `otherwise` for a class without images."""
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=values, minlength=n_classes)
    return np.divide(sums, counts, out=np.full(n_classes, float(otherwise)), where=counts > 0)


# ---------------------------------------------------------------------------------------------- what an estimator sees


@dataclass(frozen=True, eq=False)
class Learners:
    """What L trained learners say of all N images.

    features: (L, N, d) float32 penultimate activations; logits: (L, N, C) float32; fit: L arrays of positions on whose
    features a new head may be fitted: the images selected so far, but for those the learner itself was trained on when
    it is cross-fitted. Raises InputError for NaN or infinite features.
    """

    features: np.ndarray
    logits: np.ndarray
    fit: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        bad = ~np.isfinite(self.features).all(axis=(1, 2)) | ~np.isfinite(self.logits).all(axis=(1, 2))
        if bad.any():
            raise InputError(
                f"features of {bad.sum()} of {len(bad)} learners are NaN or infinite: their training diverged; "
                "lower the recipe's learning rate"
            )

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, C) mean probabilities of the ensemble."""
        return ensemble_probabilities(self.logits)


@dataclass(frozen=True, eq=False)
class View:
    """What an estimator sees in one round.

    labels: (N,) of all images; selected, candidates, held: positions (selected so far; may be added; validation);
    labels_known: False hides the candidates' labels and takes the expectation over them; seed: of the round's draws;
    ensemble, cross_fitted: give `Learners`, trained when they are first asked for, on all of `selected` and on all but
    one fold of it; retrained: validation loss (nats an image) of a learner trained on the given positions;
    samples_wanted: False where only the classes are asked for, so that no candidate need be looked at.
    """

    labels: np.ndarray
    n_classes: int
    selected: np.ndarray
    candidates: np.ndarray
    held: np.ndarray
    seed: int
    ensemble: Callable[[], Learners]
    cross_fitted: Callable[[], Learners]
    retrained: Callable[[np.ndarray, int], float]
    labels_known: bool = True
    samples_wanted: bool = True

    @property
    def counts(self) -> np.ndarray:
        """(C,) images selected so far."""
        return np.bincount(self.labels[self.selected], minlength=self.n_classes)

    def onehot(self, positions: np.ndarray) -> np.ndarray:
        """(n, C) float64."""
        return np.eye(self.n_classes)[self.labels[positions]]

    def belief(self, learners: Learners) -> np.ndarray:
        """(M, C) label distribution of the candidates: their labels, or the ensemble's probabilities."""
        return self.onehot(self.candidates) if self.labels_known else learners.probabilities[self.candidates]

    def need_labels(self, name: str) -> None:
        if not self.labels_known:
            raise InputError(
                f"estimator {name!r} needs the candidates' labels, and this pool counts as unlabelled: "
                "use 'margin', 'ridge' or 'gradient', or labels='known'"
            )

    def need_held(self, name: str) -> None:
        if not len(self.held):
            raise InputError(
                f"estimator {name!r} needs validation images, and every class has one image at most: "
                "use 'margin', or give more images"
            )

    def class_gain(self, reduction: np.ndarray) -> np.ndarray | None:
        """(C,) mean reduction over the candidates of each class; None where labels are hidden. 0 without candidates."""
        if not self.labels_known:
            return None
        return class_means(reduction, self.labels[self.candidates], self.n_classes, otherwise=0.0)


@dataclass(frozen=True, eq=False)
class Estimate:
    """samples: (M,) expected error reduction of each candidate, larger is better, in the estimator's own unit (None:
    it knows classes only); classes: (C,) of adding an image of each class (None: labels are hidden)."""

    samples: np.ndarray | None
    classes: np.ndarray | None


class Estimator(Protocol):
    """One way to estimate the error reduction: a frozen dataclass with a name."""

    name: str

    def __call__(self, view: View) -> Estimate: ...


# ---------------------------------------------------------------------------------------------- estimators


@dataclass(frozen=True)
class Margin:
    """Plain uncertainty, the reference: 1 - margin of the ensemble. Needs no labels and no validation images."""

    name: str = "margin"

    def __call__(self, view: View) -> Estimate:
        reduction = 1 - margin(view.ensemble().probabilities)[view.candidates]
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class TrueMargin:
    """1 - |margin of the true class|: images near the boundary, on either side. Needs labels."""

    name: str = "true-margin"

    def __call__(self, view: View) -> Estimate:
        view.need_labels(self.name)
        reduction = 1 - np.abs(true_class_margin(view.ensemble().probabilities, view.labels))[view.candidates]
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class Gradient:
    """First order, last layer: <mean validation gradient, the candidate's gradient>, as in GLISTER and GradMatch.

    A gradient step on x lowers the validation loss by lr <g_val, g_x>. With g = softmax - onehot and features h the
    product is g_val . g_x + h_x^T M g_x, where M = mean over the validation images of h g^T: the long gradients are
    never made. Under the expectation over labels onehot becomes the ensemble's probabilities: a single learner then
    expects no change to first order, only disagreement within the ensemble counts.
    """

    name: str = "gradient"

    def __call__(self, view: View) -> Estimate:
        view.need_held(self.name)
        learners = view.ensemble()
        belief, truth = view.belief(learners), view.onehot(view.held)
        reduction = np.zeros(len(view.candidates))
        for features, logits in zip(learners.features, learners.logits, strict=True):
            g_val = np.exp(log_softmax(logits[view.held].astype(np.float64))) - truth
            g_x = np.exp(log_softmax(logits[view.candidates].astype(np.float64))) - belief
            matrix = features[view.held].T @ g_val / len(view.held)
            reduction += g_x @ g_val.mean(axis=0) + np.einsum("md,md->m", features[view.candidates] @ matrix, g_x)
        reduction /= len(learners.features)
        return Estimate(reduction, view.class_gain(reduction))


@dataclass(frozen=True)
class Ridge:
    """Closed-form look-ahead of the last layer: exact for a linear head fitted by ridge regression.

    chunk: images added at once when a class is looked ahead for; repeats: random chunks a class, averaged;
    penalties: ridge penalties, as multiples of the mean eigenvalue, of which the one with the least validation error
    is used. The features are cross-fitted: a learner's features of its own training images look separable, whatever
    the class.
    """

    name: str = "ridge"
    chunk: int = 8
    repeats: int = 4
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)

    def __call__(self, view: View) -> Estimate:
        view.need_held(self.name)
        learners = view.cross_fitted()
        belief = view.belief(learners)
        chunks = _class_chunks(view, self.chunk, self.repeats) if view.labels_known else []
        samples = np.zeros(len(view.candidates)) if view.samples_wanted else None
        classes = np.zeros(view.n_classes)
        for features, fit in zip(learners.features, learners.fit, strict=True):
            head = RidgeHead.fit(
                features[fit], view.onehot(fit), features[view.held], view.onehot(view.held), self.penalties
            )
            if samples is not None:
                samples += head.reduction(features[view.candidates], belief)
            for owners, positions in chunks:
                targets = view.onehot(positions.ravel()).reshape(*positions.shape, -1)
                found = head.chunk_reduction(features[positions], targets) / positions.shape[1]
                classes += class_means(found, owners, view.n_classes, otherwise=0.0)
        count = len(learners.features)
        return Estimate(None if samples is None else samples / count, classes / count if view.labels_known else None)


def _class_chunks(view: View, size: int, repeats: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random chunks of each class's candidates, batched: (n,) classes and (n, m) positions for every size m <= size."""
    batches: dict[int, tuple[list[int], list[np.ndarray]]] = {}
    labels = view.labels[view.candidates]
    for label in np.unique(labels):
        members = view.candidates[labels == label]
        rng = generator(view.seed, "ridge chunks", int(label))
        owners, positions = batches.setdefault(min(size, len(members)), ([], []))
        owners += [int(label)] * repeats
        positions += [rng.permutation(members)[:size] for _ in range(repeats)]
    return [(np.asarray(owners), np.stack(positions)) for owners, positions in batches.values()]


@dataclass(frozen=True, eq=False)
class RidgeHead:
    """A ridge-regression head and what it takes to look ahead from it.

    With X the fitted features (a column of ones added), A = X^T X + penalty I and W = A^-1 X^T Y, the validation error
    is |V W - T|^2 / n over validation features V and one-hot targets T. Adding rows (U, Z) changes W by
    A^-1 U^T (I + U A^-1 U^T)^-1 (Z - U W)  [Woodbury; Sherman and Morrison for one row],
    so only d x d matrices of V are needed: the number of validation images does not matter after the fit.

    inverse: (d, d) A^-1; weights: (d, C) W; slope: (d, C) V^T (T - V W) / n; curvature: (d, d) V^T V / n;
    error: the validation error now.
    """

    inverse: np.ndarray
    weights: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    error: float
    penalty: float

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        targets: np.ndarray,
        held: np.ndarray,
        truth: np.ndarray,
        penalties: tuple[float, ...],
    ) -> "RidgeHead":
        """features (n, d), targets (n, C), held (m, d), truth (m, C); the penalty with the least validation error.

        Sums over the held-out images are made in the precision of `held`, all else in float64.
        """
        x, v = with_ones(features), with_ones(held, held.dtype)
        values, vectors = np.linalg.eigh(x.T @ x)
        curvature = (v.T @ v).astype(np.float64) / len(v)
        cross = (v.T @ truth.astype(v.dtype)).astype(np.float64) / len(v)
        projected = vectors.T @ (x.T @ targets)
        rotated, rotated_cross = vectors.T @ curvature @ vectors, vectors.T @ cross
        scale, level = max(values.mean(), 1e-12), (truth**2).sum() / len(v)
        best = None
        for multiple in penalties:
            penalty = multiple * scale
            solved = projected / (np.maximum(values, 0) + penalty)[:, None]
            error = level - 2 * (rotated_cross * solved).sum() + (solved * (rotated @ solved)).sum()
            if best is None or error < best[0]:
                best = error, penalty, solved
        error, penalty, solved = best
        inverse = (vectors / (np.maximum(values, 0) + penalty)) @ vectors.T
        weights = vectors @ solved
        return cls(inverse, weights, cross - curvature @ weights, curvature, float(error), float(penalty))

    def reduction(self, features: np.ndarray, belief: np.ndarray) -> np.ndarray:
        """(M,) reduction of the validation error by each of (M, d) images alone, expected over (M, C) beliefs.

        With k = 1 / (1 + x^T A^-1 x) and r = y - W^T x the change of W is k A^-1 x r^T, hence the reduction is
        2 k (x^T A^-1 slope) r - k^2 (x^T A^-1 curvature A^-1 x) |r|^2. It is linear and quadratic in y, and |y|^2 = 1
        for every label, so the expectation over labels is exact. Computed in the precision of `features`.
        """
        x = with_ones(features, features.dtype)
        inverse, weights, slope, curvature = (
            part.astype(x.dtype, copy=False) for part in (self.inverse, self.weights, self.slope, self.curvature)
        )
        moved = x @ inverse
        k = 1 / (1 + np.einsum("md,md->m", moved, x))
        output = x @ weights
        first = ((moved @ slope) * (belief - output)).sum(axis=1)
        squared = 1 - 2 * (belief * output).sum(axis=1) + (output**2).sum(axis=1)
        second = np.einsum("md,md->m", moved @ curvature, moved) * squared
        return 2 * k * first - k**2 * second

    def chunk_reduction(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """(R,) reduction of the validation error by each of R chunks: features (R, m, d), targets (R, m, C)."""
        u = with_ones(features)
        moved = u @ self.inverse
        small = np.eye(u.shape[1]) + moved @ u.transpose(0, 2, 1)
        solved = np.linalg.solve(small, targets - u @ self.weights)
        # the change of W is moved^T solved, of rank m: its (d, C) form is never made
        square = (moved @ self.curvature) @ moved.transpose(0, 2, 1)
        return 2 * ((moved @ self.slope) * solved).sum(axis=(1, 2)) - (solved * (square @ solved)).sum(axis=(1, 2))


def with_ones(features: np.ndarray, dtype: np.typing.DTypeLike = np.float64) -> np.ndarray:
    """(..., d) -> (..., d + 1) of the given type with a last column of ones, the head's bias."""
    return np.concatenate([features, np.ones((*features.shape[:-1], 1))], axis=-1, dtype=dtype)


@dataclass(frozen=True)
class Retrain:
    """Real short retrainings in a balanced design: every run informs every class. Knows classes only.

    C runs in which half of the classes have `delta` more and half `delta` less of their images, and two with all more
    and all less; the regression of the validation loss on ln n_c gives every class's effect from all C + 2 runs, with a
    variance of about 1 / (C delta^2) of a run's instead of 2 / delta^2 for one pair of runs a class. The gain of one
    more image is -(d loss / d ln n_c) / n_c.
    """

    name: str = "retrain"
    delta: float = 0.5

    def __call__(self, view: View) -> Estimate:
        view.need_labels(self.name)
        view.need_held(self.name)
        have = view.counts
        logs, losses = [], []
        for run, signs in enumerate(balanced_design(view.n_classes, generator(view.seed, "retrain design"))):
            positions = self._resized(view, signs, run)
            now = np.bincount(view.labels[positions], minlength=view.n_classes)
            logs.append(np.log(np.maximum(now, 0.5)) - np.log(np.maximum(have, 0.5)))
            losses.append(view.retrained(positions, run))
        x = np.stack(logs)
        y = np.asarray(losses)
        # two rows of the design are nearly dependent for few classes: the least-norm solution of the centred system
        effect = np.linalg.pinv(x - x.mean(axis=0), rcond=1e-6) @ (y - y.mean())
        return Estimate(None, -effect / np.maximum(have, 1))

    def _resized(self, view: View, signs: np.ndarray, run: int) -> np.ndarray:
        """`selected` with every class delta larger or smaller (at least one image where it has any)."""
        kept = []
        for label, have in enumerate(view.counts):
            mine = view.selected[view.labels[view.selected] == label]
            more = view.candidates[view.labels[view.candidates] == label]
            rng = generator(view.seed, "retrain", run, label)
            step = max(1, round(self.delta * have))
            if signs[label] > 0:
                kept += [mine, rng.permutation(more)[:step]]
            elif signs[label] < 0:
                kept.append(rng.permutation(mine)[: max(have - step, min(have, 1))])
            else:
                kept.append(mine)
        return np.concatenate(kept)


def balanced_design(n_classes: int, rng: np.random.Generator) -> np.ndarray:
    """(C + 2, C) of -1, 0, 1: C rows that sum to 0 and shift through the classes, then all 1 and all -1.

    The rows are the cyclic shifts of one balanced row (an odd C has one 0 a row), drawn until the design has full rank
    and is well conditioned; so every class is up as often as down.
    """
    if n_classes == 1:
        return np.array([[0], [1], [-1]])
    half = n_classes // 2
    row = np.concatenate([np.ones(half), -np.ones(half), np.zeros(n_classes % 2)]).astype(np.int64)
    best, best_value = None, -1.0
    for _ in range(50):
        first = rng.permutation(row)
        design = np.stack([np.roll(first, shift) for shift in range(n_classes)] + [row * 0 + 1, row * 0 - 1])
        value = np.linalg.svd(design, compute_uv=False)[-1] if n_classes <= 200 else 1.0
        if value > best_value:
            best, best_value = design, value
        if n_classes > 200:
            break
    return best


ESTIMATORS: dict[str, Estimator] = {e.name: e for e in (Margin(), TrueMargin(), Ridge(), Gradient(), Retrain())}


def get_estimator(name: str) -> Estimator:
    """An estimator by name; InputError lists the known ones."""
    if name not in ESTIMATORS:
        raise InputError(f"unknown estimator {name!r}: the known ones are {', '.join(ESTIMATORS)}")
    return ESTIMATORS[name]


# ---------------------------------------------------------------------------------------------- counts and samples


def shrunk(weights: np.ndarray, shrink: float) -> np.ndarray:
    """(C,) shares that sum to 1: weights >= 0 (all zero: equal), mixed with equal shares by `shrink` in [0, 1]."""
    total = weights.sum()
    share = weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
    return (1 - shrink) * share + shrink / len(weights)


def shares_by_gain(gain: np.ndarray, counts: np.ndarray, exponent: float = 0.5) -> np.ndarray:
    """(C,) shares of the counts at which all classes would gain equally from one more image. [ours]

    gain: error reduction an added image of each class brings now, at `counts` images; it falls as n^-(1 + exponent) (a
    power-law learning curve), so equal gains are reached at n_c in proportion to counts_c gain_c^(1 / (1 + exponent)).
    A gain <= 0 is noise about zero: such a class gets nothing new.
    """
    return np.maximum(counts, 1) * np.maximum(gain, 0) ** (1 / (1 + exponent))


def spread(
    scores: np.ndarray, features: np.ndarray, n_picks: int, taken: np.ndarray | None = None, diversity: float = 1.0
) -> np.ndarray:
    """n_picks of the rows, best score first, none like another: positions in the order picked.

    scores: (n,) larger is better, >= 0; features: (n, d); taken: (m, d) features of what is selected already. Greedy:
    the next pick has the largest score * distance^diversity, where distance in [0, 1] is (1 - cosine) / 2 to the
    nearest one picked or taken: a duplicate has none. diversity = 0 ranks by the score alone. Ties to the first row.
    """
    if diversity == 0:
        return np.argsort(-scores, kind="stable")[:n_picks]
    z = unit_rows(features)
    nearest = np.full(len(z), -1.0, dtype=np.float32)
    if taken is not None and len(taken):
        nearest = (z @ unit_rows(taken).T).max(axis=1)
    left = np.ones(len(z), dtype=bool)
    picked = []
    for _ in range(min(n_picks, len(z))):
        distance = np.clip((1 - nearest.astype(np.float64)) / 2, 0, 1)
        distance[distance < 1e-6] = 0  # float32 rounding of a duplicate
        # where only duplicates are left, the score decides among them
        worth = np.where(left, np.maximum(scores, 0) * distance**diversity, -1.0)
        pick = int(worth.argmax())
        if worth[pick] <= 0:
            pick = int(np.where(left, scores, -np.inf).argmax())
        picked.append(pick)
        left[pick] = False
        nearest = np.maximum(nearest, z @ z[pick])
    return np.asarray(picked, dtype=np.int64)
