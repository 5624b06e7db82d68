"""Cal: contrastive examples, alike in features to images that are predicted otherwise."""

from dataclasses import dataclass

import numpy as np

from dqas_lib.core.checks import whole_number
from dqas_lib.methods.base import ScoreMethod, option, register
from dqas_lib.pool import Pool
from dqas_lib.training.features import unit_rows
from dqas_lib.training.probabilities import log_softmax

_BLOCK = 512


@register
@dataclass(frozen=True)
class Cal(ScoreMethod, name="cal", needs=("features", "logits")):
    """Predicted otherwise than its neighbors [Margatina et al., EMNLP 2021, arXiv:2109.03764, Algorithm 1].

    Definition: the largest mean over the k nearest other images i, by cosine and of any class, of KL(p_i | p_x).
    neighbors: k = 10 [Cal]. (Public code picks the lowest divergence.)
    Needs: features, logits. Cost: O(N^2 d) in blocks of O(N) memory.
    """

    neighbors: int = option(10, whole_number)

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) mean divergences in nats."""
        order, scores = pool.by_id, np.empty(len(pool.images))
        scores[order] = contrast(pool.features[order], pool.logits[order], self.neighbors)
        return scores


def nearest_neighbors(features: np.ndarray, k: int) -> np.ndarray:
    """(n, min(k, n - 1)) positions of each row's nearest other rows by cosine, nearest first; ties to the lowest."""
    z = unit_rows(features)
    k = min(k, len(z) - 1)
    neighbors = np.empty((len(z), k), dtype=np.int64)
    for start in range(0, len(z) if k else 0, _BLOCK):
        likeness = z[start : start + _BLOCK] @ z.T
        rows = np.arange(len(likeness))
        likeness[rows, start + rows] = -np.inf
        near = np.sort(np.argpartition(-likeness, k - 1, axis=1)[:, :k], axis=1)
        order = np.argsort(-likeness[rows[:, None], near], axis=1, kind="stable")
        neighbors[start : start + _BLOCK] = near[rows[:, None], order]
    return neighbors


def contrast(features: np.ndarray, logits: np.ndarray, k: int) -> np.ndarray:
    """(n,) mean KL(p_i | p_x) in nats over the k nearest neighbors i of x; 0 for a single image."""
    logs = log_softmax(logits.astype(np.float64))
    p = np.exp(logs)
    near = nearest_neighbors(features, k)
    if not near.shape[1]:
        return np.zeros(len(logs))
    own = np.einsum("ij,ij->i", p, logs)
    mean_p = np.stack([p[column] for column in near.T]).mean(axis=0)
    return own[near].mean(axis=1) - np.einsum("ij,ij->i", mean_p, logs)
