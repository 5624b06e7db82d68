"""Methods that match last-layer gradients: CRAIG, GradMatch (of the class), GLISTER (of validation images)."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy

from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.checks import number, whole_number
from dqas_lib.methods.base import Choice, GroupMethod, draw_within_classes, groups, option, quotas, register
from dqas_lib.methods.greedy import TIE, Columns, greedy, greedy_facility_location, nearest
from dqas_lib.pool import Pool
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.probabilities import logit_gradients


@dataclass(frozen=True)
class _Weighted(GroupMethod, needs=("labels", "gradients")):
    """A method that selects weighted gradients of each class. Subclasses give `match`."""

    def match(self, gradients: Gradients, n_picks: int) -> tuple[np.ndarray, np.ndarray]:
        """(n_picks,) positions in the order picked, and their weights >= 0."""
        raise NotImplementedError

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Weights: of the loss; none when all are 0."""
        pool.check(self)
        each = groups(pool, budget, self.balance)
        picks = [self.match(pool.gradients.take(rows), count) for rows, count in each]
        weights = np.concatenate([weight for _, weight in picks])
        positions = [rows[order] for (rows, _), (order, _) in zip(each, picks, strict=True)]
        return Choice(np.concatenate(positions), weights=weights if weights.any() else None)


@register
@dataclass(frozen=True)
class Craig(_Weighted, name="craig"):
    """Medoids in gradient space, weighted [Mirzasoleiman et al., ICML 2020, arXiv:1906.01827, Algorithm 1].

    Definition: greedy minimization of sum_i min_{j in S} |G_i - G_j| over the last-layer gradients, as facility
    location with s_ij = d_max - |G_i - G_j|; image j weighs as many as have it nearest, itself among them.
    Needs: labels, gradients. Cost: as facility location, with C + d in the place of d.
    """

    def match(self, gradients: Gradients, n_picks: int) -> tuple[np.ndarray, np.ndarray]:
        """Greedy medoids, and how many gradients each is nearest to."""
        columns = closeness(gradients)
        order = greedy_facility_location(columns, len(gradients), n_picks)
        place = nearest(columns, order)
        place[order] = np.arange(n_picks)  # a medoid stands for itself, also beside a duplicate
        return order, np.bincount(place, minlength=n_picks).astype(np.float64)


def closeness(gradients: Gradients) -> Columns:
    """Columns of s_ij = d_max - |G_i - G_j|, with d_max twice the largest norm (no two are farther apart)."""
    squares = gradients.norms**2
    reach = 2 * np.sqrt(squares.max(initial=0.0))

    def columns(rows: np.ndarray) -> np.ndarray:
        both = squares[:, None] + squares[rows]
        squared = both - 2 * gradients.inner(gradients.take(rows))
        squared[squared < 1e-12 * both] = 0.0  # what rounding leaves of equal gradients would decide ties
        return np.maximum(reach - np.sqrt(squared), 0.0)

    return columns


@register
@dataclass(frozen=True)
class GradMatch(_Weighted, name="gradmatch"):
    """Weighted gradients that sum to the class's [Killamsetty et al., ICML 2021, arXiv:2103.00123, Algorithm 2].

    Definition: for T = sum_i G_i of the class's last-layer gradients, pick argmax_j <T - sum w G, G_j>, then set all
    weights to argmin_{w >= 0} |T - sum w G|^2 + lambda |w|^2, and so on; lambda = ridge * mean |G|^2 [ours]. Images
    picked when nothing is left to match weigh 0. Needs: labels, gradients. Cost: O(n C d), a k x k system per pick.
    """

    ridge: float = option(0.5, partial(number, low=0, ends="()"))

    def match(self, gradients: Gradients, n_picks: int) -> tuple[np.ndarray, np.ndarray]:
        """Orthogonal matching pursuit; ties to the lowest position."""
        target, squares = gradients.total(), gradients.norms**2
        penalty = self.ridge * squares.mean() if squares.any() else 1.0
        wanted = gradients.against(target)  # <T, G_j>
        gram, weights = np.zeros((n_picks, n_picks)), np.zeros(0)
        picked: list[int] = []

        def update(pick: int) -> None:
            nonlocal weights
            picked.append(pick)
            k, chosen = len(picked), gradients.take(np.asarray(picked))
            gram[k - 1, :k] = gram[:k, k - 1] = gradients.take(np.array([pick])).inner(chosen)[0]
            gram[k - 1, k - 1] += penalty
            weights = non_negative_solution(gram[:k, :k], wanted[picked])
            gain[:] = gradients.against(target - chosen.total(weights))

        gain = wanted.copy()
        order = greedy(gain, n_picks, update, tie=TIE * max(1.0, np.abs(wanted).max(initial=0.0)))
        return order, weights


def non_negative_solution(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(k,) argmin_{w >= 0} w' M w / 2 - w' r of a positive definite (k, k) M."""
    weights = np.linalg.solve(matrix, right)
    if weights.min() < 0:
        root = np.linalg.cholesky(matrix)
        weights, _ = scipy.optimize.nnls(root.T, scipy.linalg.solve_triangular(root, right, lower=True))
        inside = np.flatnonzero(weights)  # solved anew, to the last digits
        weights[inside] = np.linalg.solve(matrix[np.ix_(inside, inside)], right[inside])
    return np.maximum(weights, 0.0)


@register
@dataclass(frozen=True)
class Glister(GroupMethod, name="glister", needs=("labels", "features", "logits")):
    """A step on it lowers the validation loss most [Killamsetty et al., AAAI 2021, arXiv:2012.10630, Algorithm 1].

    Definition: greedy; the gain of image j is <sum_{v in val} G_v, G_j> at the current parameters, the first-order fall
    of the validation loss by a step along -G_j. After every part of the budget the last layer takes the steps of what
    was picked, and all gains are worked out anew (an update that never runs is a known defect of public code).
    validation: fraction of the images held out; the network never saw them, and they are selected last. updates: how
    often the last layer is updated (at most once per pick). eta: a step changes an average image's own logits by eta g
    [ours]. Needs: labels, features, logits. Cost: one training without the held-out images, O(N C d) per update.
    """

    validation: float = option(0.1, partial(number, low=0, high=1, ends="()"))
    updates: int = option(50, whole_number)
    eta: float = option(0.1, partial(number, low=0, ends="()"))

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        order, n_classes, outputs = pool.by_id, pool.images.n_classes, pool.held_out(self.validation)
        features, logits, held = (outputs[name][order] for name in ("features", "logits", "held"))
        labels = pool.images.labels[order]
        wanted = pool.images.class_counts if self.balance == "free" else quotas(pool, budget, self.balance)
        caps = np.minimum(wanted, np.bincount(labels[~held], minlength=n_classes))
        first = min(budget, int(caps.sum()))
        picked = greedy_validation_gain(features, logits, labels, held, caps, first, self.updates, self.eta)
        if budget == first:
            return Choice(order[picked])
        # only the held-out images are left
        short = np.maximum(wanted - np.bincount(labels[picked], minlength=n_classes), 0)
        left = np.minimum(short, np.bincount(labels[held], minlength=n_classes))
        left = largest_remainder(left, budget - first, caps=left)
        spare = draw_within_classes(pool, order[held], left, use="glister, held out")
        return Choice(np.concatenate([order[picked], spare]))


def greedy_validation_gain(
    features: np.ndarray, logits: np.ndarray, labels: np.ndarray, held: np.ndarray, caps: np.ndarray, n_picks: int,
    updates: int, eta: float,
) -> np.ndarray:  # fmt: skip
    """(n_picks,) rows not in held (N,) bool, at most caps[c] of class c, with the largest gains; see `Glister`."""
    h = np.concatenate([np.ones((len(features), 1)), features.astype(np.float64)], axis=1)
    z = logits.astype(np.float64).copy()
    eta = eta / np.einsum("ij,ij->i", h, h).mean()
    room, left, validation = caps.astype(np.int64), np.flatnonzero(~held), np.flatnonzero(held | ~held.any())
    picked: list[int] = []
    for part in range(updates):
        wanted = round(n_picks * (part + 1) / updates) - len(picked)
        if wanted <= 0:
            continue
        gradients = Gradients(logit_gradients(z, labels), h)
        gain = gradients.take(left).against(gradients.take(validation).total())
        ranked = left[np.argsort(-gain, kind="stable")]
        # of each class the first that it has room for, and of those the first that are wanted
        by_class = np.argsort(labels[ranked], kind="stable")
        sorted_labels = labels[ranked][by_class]
        among_class = np.empty(len(ranked), dtype=np.int64)
        among_class[by_class] = np.arange(len(ranked)) - np.searchsorted(sorted_labels, sorted_labels)
        new = ranked[among_class < room[labels[ranked]]][:wanted]
        room -= np.bincount(labels[new], minlength=len(room))
        left = np.setdiff1d(left, new, assume_unique=True)
        picked.extend(new.tolist())
        z -= eta * (h @ (h[new].T @ gradients.g[new]))
    return np.asarray(picked, dtype=np.int64)
