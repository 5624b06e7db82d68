"""Stage 2, features: unit features of the (reconstructed) images.

DQAS cuts its bins in the feature space of the images that are really trained on. [paper, patchified-image-aware]
"""

import numpy as np

from dqas_lib.errors import InputError


def check_features(features: np.ndarray) -> np.ndarray:
    """The (N, d) features as an array; InputError when they have another shape, or a value is NaN or infinite."""
    features = np.asarray(features)
    if features.ndim != 2:
        raise InputError(f"features must be (N, d); got shape {features.shape}")
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise InputError(
            f"features of {bad.sum()} of {len(features)} images are NaN or infinite (first: row {bad.argmax()})"
        )
    return features


def unit_rows(features: np.ndarray) -> np.ndarray:
    """(N, d) rows scaled to length 1; rows of zeros stay zeros (their cosine with anything is 0).

    Raises InputError when a value is NaN or infinite.
    """
    features = check_features(features).astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("ij,ij->i", features, features, dtype=np.float64))
    return features / np.where(norms > 0, norms, 1).astype(np.float32)[:, None]


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
