"""Last-layer gradients in factors: G_i = g_i (x) [1, h_i], never written out as C(d + 1) numbers.

With g_i = softmax(logits_i) - onehot(y_i) and h_i the penultimate activations, the gradient of the cross-entropy in the
last layer (bias first) is the outer product of g_i and [1, h_i]. Hence <G_i, G_j> = (g_i . g_j)(1 + h_i . h_j) exactly,
and a sum of gradients is one C x (d + 1) matrix.
"""

from dataclasses import dataclass

import numpy as np


def last_layer_gradients(features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the cross-entropy in the last layer, in factors: (N, C) g = softmax - onehot, and (N, d) h.

    The full gradient of image i is [g_i, g_i (x) h_i], of length C(d + 1); its inner product with image j's is exactly
    (g_i . g_j)(1 + h_i . h_j), so the long vectors are never made. This is what DQ compares.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    g = np.exp(shifted)
    g /= g.sum(axis=1, keepdims=True)
    g[np.arange(len(labels)), labels] -= 1
    return g, features


@dataclass(frozen=True, eq=False)
class Gradients:
    """n gradients in factors.

    g: (n, C) float64; h: (n, d + 1) float64, a leading 1 (the bias) before the activations.
    """

    g: np.ndarray
    h: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> "Gradients":
        """Gradients of the cross-entropy, from (n, d) activations, (n, C) logits and (n,) labels."""
        g, h = last_layer_gradients(features.astype(np.float64), logits.astype(np.float64), labels)
        return cls(g, np.concatenate([np.ones((len(h), 1)), h], axis=1))

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
        return Gradients(_unit(self.g), _unit(self.h))

    def total(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(C, d + 1) sum of the gradients, or of `weights` times them."""
        return self.g.T @ (self.h if weights is None else self.h * weights[:, None])

    def against(self, matrix: np.ndarray) -> np.ndarray:
        """(n,) inner products of each gradient with a (C, d + 1) matrix."""
        return np.einsum("ij,ij->i", self.g @ matrix, self.h)

    def inner(self, other: "Gradients") -> np.ndarray:
        """(n, m) inner products with other gradients."""
        return (self.g @ other.g.T) * (self.h @ other.h.T)


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)
