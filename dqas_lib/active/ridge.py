"""Look-ahead by a ridge-regression head: what refitting the last layer with more images would bring [ours]."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.active.round import Estimate, View
from dqas_lib.core.checks import check_fields, number, whole_number
from dqas_lib.core.seeds import generator
from dqas_lib.training.probabilities import class_means


@dataclass(frozen=True)
class Ridge:
    """Closed-form look-ahead of the last layer: exact for a linear head fitted by ridge regression.

    The features are cross-fitted: a learner's features of its own training images look separable, whatever the class.

    Args:
        chunk: Images added at once when a class is looked ahead for.
        repeats: Random chunks per class, averaged.
        penalties: Ridge penalties, as multiples of the mean eigenvalue; that of the least validation error is used.
    """

    name: ClassVar[str] = "ridge"
    chunk: int = 8
    repeats: int = 4
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)

    def __post_init__(self) -> None:
        check_fields(self)
        for penalty in self.penalties or (0.0,):
            number(f"Ridge: each penalty of {self.penalties}", penalty, 0, ends="()")
        for name in ("chunk", "repeats"):
            whole_number(f"Ridge: {name}", getattr(self, name))

    def __call__(self, view: View) -> Estimate:
        """See `Estimator`."""
        view.need(self.name, validation=True)
        learners, judges = view.cross_fitted(), view.validation
        belief = view.belief(learners)
        chunks = _class_chunks(view, self.chunk, self.repeats) if view.labels_known else []
        samples = np.zeros(len(view.candidates)) if view.samples_wanted else None
        classes = np.zeros(view.n_classes)
        for features, fit in zip(learners.features, learners.fit, strict=True):
            head = RidgeHead.fit(features[fit], view.onehot(fit), features[judges], view.onehot(judges), self.penalties)
            if samples is not None:
                samples += head.reduction(features[view.candidates], belief)
            for owners, positions in chunks:
                targets = view.onehot(positions.ravel()).reshape(*positions.shape, -1)
                reduction = head.chunk_reduction(features[positions], targets) / positions.shape[1]
                classes += class_means(reduction, owners, view.n_classes, otherwise=0.0)
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

    Args:
        inverse, weights: (d, d) A^-1; (d, C) W.
        slope, curvature: (d, C) V^T (T - V W) / n; (d, d) V^T V / n.
        error, penalty: The validation error now; the ridge penalty.
    """

    inverse: np.ndarray
    weights: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray
    error: float
    penalty: float

    @classmethod
    def fit(
        cls, x: np.ndarray, y: np.ndarray, v: np.ndarray, t: np.ndarray, penalties: tuple[float, ...]
    ) -> "RidgeHead":
        """A head fitted to (n, d) features x and (n, C) targets y, with the penalty of the least validation error.

        v, t: (m, d) and (m, C) of the validation images; sums over them are made in the precision of v, all else in
        float64.
        """
        x, v = with_ones(x), with_ones(v, v.dtype)
        values, vectors = np.linalg.eigh(x.T @ x)
        curvature = (v.T @ v).astype(np.float64) / len(v)
        cross = (v.T @ t.astype(v.dtype)).astype(np.float64) / len(v)
        projected = vectors.T @ (x.T @ y)
        rotated, rotated_cross = vectors.T @ curvature @ vectors, vectors.T @ cross
        scale, level = max(values.mean(), 1e-12), (t**2).sum() / len(v)
        fits = []
        for multiple in penalties:
            penalty = multiple * scale
            solved = projected / (np.maximum(values, 0) + penalty)[:, None]
            error = level - 2 * (rotated_cross * solved).sum() + (solved * (rotated @ solved)).sum()
            fits.append((error, penalty, solved))
        error, penalty, solved = min(fits, key=lambda fit: fit[0])
        inverse = (vectors / (np.maximum(values, 0) + penalty)) @ vectors.T
        weights = vectors @ solved
        return cls(inverse, weights, cross - curvature @ weights, curvature, float(error), float(penalty))

    def reduction(self, features: np.ndarray, belief: np.ndarray) -> np.ndarray:
        """(M,) reduction of the validation error by each of (M, d) images alone, expected over (M, C) beliefs.

        With k = 1 / (1 + x^T A^-1 x) and r = y - W^T x the change of W is k A^-1 x r^T, hence the reduction is
        2 k (x^T A^-1 slope) r - k^2 (x^T A^-1 curvature A^-1 x) |r|^2. As |y|^2 = 1 for every label, the expectation
        over labels is exact. Computed in the precision of `features`.
        """
        x = with_ones(features, features.dtype)
        parts = (self.inverse, self.weights, self.slope, self.curvature)
        inverse, weights, slope, curvature = (part.astype(x.dtype, copy=False) for part in parts)
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
