"""GLISTER: images whose gradient step lowers the validation loss most."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, check_balance, draw_within_classes, quotas, register
from dqas_lib.pool import Pool
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.probabilities import softmax


@register
@dataclass(frozen=True)
class Glister:
    """GLISTER. [Killamsetty et al., AAAI 2021, Algorithm 1 with the Taylor approximation of Section 3.3]

    Definition: greedy; the gain of image j is <sum_{v in val} G_v, G_j> at the current parameters, the first-order fall
    of the validation loss by a step along -G_j. After every part of the budget the last layer takes the steps of what
    was picked, and all gains are worked out anew (an update that never runs is a known defect of public code).
    In factors a step on p changes the logits of every image i by -eta (1 + h_i . h_p) g_p, so it costs O(N d).

    validation: share of the images held out; the network never saw them, and they are chosen last. updates: how often
    the last layer is updated (at most once a pick). eta: a step changes an average image's own logits by eta g [ours].
    Needs: labels, features, logits (of a network trained without the held-out images). Cost: one training, then
    O(N C d) an update.
    """

    name: ClassVar[str] = "glister"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "logits")
    balance: str = "proportional"
    validation: float = 0.1
    updates: int = 50
    eta: float = 0.1

    def __post_init__(self) -> None:
        check_balance(self.balance)
        if not 0 < self.validation < 1 or self.updates < 1 or not self.eta > 0:
            raise InputError(
                "validation must lie in (0, 1), updates be at least 1, eta above 0; "
                f"got {self.validation!r}, {self.updates!r}, {self.eta!r}"
            )

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`."""
        pool.check(self)
        images, order = pool.images, pool.by_id
        found = pool.held_out(self.validation)
        held = found["held"][order]
        labels = images.labels[order]
        sizes = images.class_counts
        wanted = sizes if self.balance == "free" else quotas(pool, budget, self.balance)
        open_ = np.bincount(labels[~held], minlength=images.n_classes)
        caps = np.minimum(wanted, open_)
        first = min(budget, int(caps.sum()))
        picked = order[
            greedy_validation_gain(
                found["features"][order],
                found["logits"][order],
                labels,
                validation=np.flatnonzero(held) if held.any() else np.arange(len(order)),
                candidates=np.flatnonzero(~held),
                caps=caps,
                n_picks=first,
                updates=self.updates,
                eta=self.eta,
            )
        ]
        if budget > first:  # only the held-out images are left
            spare = order[held]
            short = np.maximum(wanted - np.bincount(images.labels[picked], minlength=images.n_classes), 0)
            left = np.minimum(short, np.bincount(images.labels[spare], minlength=images.n_classes))
            left = largest_remainder(left, budget - first, caps=left)
            picked = np.concatenate([picked, draw_within_classes(pool, spare, left, use="glister, held out")])
        return Choice(picked)


def greedy_validation_gain(
    features: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    validation: np.ndarray,
    candidates: np.ndarray,
    caps: np.ndarray,
    n_picks: int,
    updates: int,
    eta: float,
) -> np.ndarray:
    """(n_picks,) positions among `candidates`, at most caps[c] of class c, with the largest gains; see `Glister`.

    features: (N, d), logits: (N, C), labels: (N,) of all images; validation, candidates: positions.
    """
    h = np.concatenate([np.ones((len(features), 1)), features.astype(np.float64)], axis=1)
    z = logits.astype(np.float64).copy()
    target = np.eye(z.shape[1])[labels]
    eta = eta / np.einsum("ij,ij->i", h, h).mean()
    room = caps.astype(np.int64).copy()
    open_ = np.ones(len(candidates), dtype=bool)
    picked: list[int] = []
    for part in range(updates):
        wanted = round(n_picks * (part + 1) / updates) - len(picked)
        if wanted <= 0:
            continue
        gradients = Gradients(softmax(z) - target, h)
        gain = gradients.take(candidates).against(gradients.take(validation).total())
        new = []
        for place in np.argsort(-gain, kind="stable"):
            label = labels[candidates[place]]
            if open_[place] and room[label] > 0:
                new.append(place)
                room[label] -= 1
                if len(new) == wanted:
                    break
        open_[new] = False
        rows = candidates[new]
        picked.extend(rows.tolist())
        z -= eta * (h @ (h[rows].T @ gradients.g[rows]))
    return np.asarray(picked, dtype=np.int64)
