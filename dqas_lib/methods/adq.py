"""Adaptive Dataset Quantization: DQ's bins, with more drawn from the bins that matter more."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.checks import number, whole_number
from dqas_lib.core.seeds import generator
from dqas_lib.methods.base import Choice, draw_from_bins, register
from dqas_lib.pool import Pool
from dqas_lib.training.contrastive import contrastive_embedding


@register
@dataclass(frozen=True)
class ADQ:
    """DQ's bins, with more drawn from those that matter more [Li et al., AAAI 2025, arXiv:2412.16895].

    Definition: q_n images are drawn uniformly from bin n of N(n) images, in proportion to r_n N(n), with
    r_n = alpha I_n + (1 - alpha) N(n) / sum N and the importance I_n = (Rep_n + Div_n) / 2. Rep_n: mean texture level
    [ADQ]. Div_n: 1 minus the mean cosine of two images in a contrastive embedding [ours: the code takes the inverse of
    the mean, which has a pole]. Both are divided by their sum over the class's bins, and q_n sums to the class's share
    of the budget [ours: the paper rounds each q_n down; its code applies the weights of ten bins to slices of one].
    alpha: 0.5 [ours]. Needs: labels, features, network. Cost: DQ's, and `steps` contrastive steps.
    """

    name: ClassVar[str] = "adq"
    needs: ClassVar[tuple[str, ...]] = ("labels", "features", "network")
    n_bins: int = 10
    alpha: float = 0.5
    steps: int = 200

    def __post_init__(self) -> None:
        whole_number("ADQ: n_bins", self.n_bins)
        number("ADQ: alpha", self.alpha, 0, 1)
        whole_number("ADQ: steps", self.steps, 0)

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: bin, rank; representativeness, diversity (C, n_bins), quota (C, n_bins)."""
        pool.check(self)
        images, bins, sizes = pool.images, pool.bins(self.n_bins), pool.images.class_counts
        counts, texture = largest_remainder(sizes, budget, caps=sizes), texture_level(images.images)

        def embed() -> dict[str, np.ndarray]:
            ordered = images.take(pool.by_id)
            z = contrastive_embedding(ordered, setting=pool.setting, seed=pool.seed, steps=self.steps)
            return {"z": z[np.argsort(pool.by_id)]}

        embedding = pool.stage("contrastive", {"steps": self.steps}, embed, (contrastive_embedding,))["z"]
        rep, div = np.zeros((2, images.n_classes, self.n_bins))
        quota = np.zeros(rep.shape, dtype=np.int64)
        for label in np.flatnonzero(sizes).tolist():
            inside = [np.flatnonzero((images.labels == label) & (bins.bin == n)) for n in range(self.n_bins)]
            rep[label] = [texture[rows].mean() if len(rows) else 0 for rows in inside]
            div[label] = [diversity(embedding[rows]) for rows in inside]
            in_bin = np.array([len(rows) for rows in inside])
            shares = in_bin * sampling_ratios(rep[label], div[label], in_bin, self.alpha)
            first = generator(pool.seed, "adq", label, "remainders").permutation(self.n_bins)
            quota[label][first] = largest_remainder(shares[first], int(counts[label]), caps=in_bin[first])
        # one bin at a time, so that each draws from a stream of its own
        inside = [np.flatnonzero(bins.bin == n) for n in range(self.n_bins)]
        positions = [draw_from_bins(pool, bins, rows, quota[:, n], use=f"adq {n}") for n, rows in enumerate(inside)]
        trace = {"bin": bins.bin, "rank": bins.rank, "representativeness": rep, "diversity": div, "quota": quota}
        return Choice(np.concatenate(positions), trace=trace)


def texture_level(images: np.ndarray) -> np.ndarray:
    """(N,) mean of |Sobel_x| / 2 + |Sobel_y| / 2 over the pixels of (N, H, W, 3) uint8 images, gray (Rec. 601)."""
    from scipy.ndimage import correlate1d  # as slow to import as the whole library

    levels = np.empty(len(images))
    for start in range(0, len(images), 1024):
        gray = images[start : start + 1024] @ np.array([0.299, 0.587, 0.114])
        down, right = (correlate1d(correlate1d(gray, [-1, 0, 1], axis), [1, 2, 1], 3 - axis) for axis in (1, 2))
        levels[start : start + 1024] = 0.5 * (np.abs(down) + np.abs(right)).mean(axis=(1, 2))
    return levels


def diversity(embedding: np.ndarray) -> float:
    """1 minus the mean cosine of two different rows of (n, d) unit embeddings; 0 for fewer than two rows."""
    n = len(embedding)
    if n < 2:
        return 0.0
    total, own = embedding.sum(axis=0, dtype=np.float64), np.einsum("ij,ij->", embedding, embedding, dtype=np.float64)
    return float(1 - (total @ total - own) / (n * (n - 1)))


def sampling_ratios(rep: np.ndarray, div: np.ndarray, sizes: np.ndarray, alpha: float) -> np.ndarray:
    """(n_bins,) r_n = alpha I_n + (1 - alpha) N(n) / sum N, which sum to 1; scores that are all 0 count as equal."""

    def share(values: np.ndarray) -> np.ndarray:
        return values / values.sum() if values.sum() > 0 else np.full(len(values), 1 / len(values))

    importance = 0.5 * (share(rep) + share(np.maximum(div, 0)))
    return alpha * importance + (1 - alpha) * share(sizes.astype(np.float64))
