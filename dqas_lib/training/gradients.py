"""Last-layer gradients in factors: G_i = g_i (x) [1, h_i], never written out as C(d + 1) numbers.

g_i = softmax(logits_i) - onehot(y_i), and h_i are the penultimate activations. Hence <G_i, G_j> = (g_i . g_j)(1 + h_i .
h_j) exactly, and a sum of gradients is one C x (d + 1) matrix. These are the gradients that DQ compares. [DQ]
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from dqas_lib.training.probabilities import logit_gradients


@dataclass(frozen=True, eq=False)
class Gradients:
    """n gradients in factors: g (n, C) with respect to the logits, h (n, d + 1) a 1 (the bias) and the activations."""

    g: np.ndarray
    h: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> Self:
        """Gradients of the cross-entropy, from (n, d) activations, (n, C) logits and (n,) labels."""
        bias = np.ones((len(features), 1))
        return cls(logit_gradients(logits.astype(np.float64), labels), np.concatenate([bias, features], axis=1))

    def __len__(self) -> int:
        return len(self.g)

    def take(self, rows: np.ndarray) -> "Gradients":
        """The gradients of some rows."""
        return Gradients(self.g[rows], self.h[rows])

    @property
    def norms(self) -> np.ndarray:
        """(n,) Euclidean norms."""
        return np.linalg.norm(self.g, axis=1) * np.linalg.norm(self.h, axis=1)

    def unit(self) -> "Gradients":
        """Each gradient scaled to norm 1 (a zero gradient stays zero)."""
        lengths = (np.linalg.norm(rows, axis=1, keepdims=True) for rows in (self.g, self.h))
        return Gradients(*(rows / np.where(n > 0, n, 1) for rows, n in zip((self.g, self.h), lengths, strict=True)))

    def total(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(C, d + 1) sum of the gradients, or of `weights` times them."""
        return self.g.T @ (self.h if weights is None else self.h * weights[:, None])

    def against(self, matrix: np.ndarray) -> np.ndarray:
        """(n,) inner products of each gradient with a (C, d + 1) matrix."""
        return np.einsum("ij,ij->i", self.g @ matrix, self.h)

    def inner(self, other: "Gradients") -> np.ndarray:
        """(n, m) inner products with other gradients."""
        return (self.g @ other.g.T) * (self.h @ other.h.T)
