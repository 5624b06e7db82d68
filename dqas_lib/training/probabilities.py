"""Probabilities: what is read off the class probabilities of images, in plain NumPy (scipy.special is slow to import).

Results have the kind of float that is given: pass float64 logits where the last digits decide.
"""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the class probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities along the last axis."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def ensemble_probabilities(logits: np.ndarray) -> np.ndarray:
    """(L, N, C) logits of L learners -> (N, C) mean probabilities."""
    return np.exp(log_softmax(logits)).mean(axis=0)


def entropy(logits: np.ndarray) -> np.ndarray:
    """(N,) entropies in nats of the softmax of (N, C) logits."""
    logs = log_softmax(logits)
    return -np.einsum("ij,ij->i", np.exp(logs), logs)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """(N,) difference of the two largest of (N, C) probabilities: small where the learner hesitates. One class: 1."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)
    return top[:, -1] - top[:, -2]


def true_class_margin(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) score of the true class minus the largest other, of (N, C) logits or probabilities: negative where wrong.

    With a single class there is no other, and its score counts as 0.
    """
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    rival = others.max(axis=1) if scores.shape[1] > 1 else np.zeros(len(labels))
    return scores[rows, labels] - rival


def logit_gradients(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, C) gradients of the cross-entropy with respect to (N, C) logits: softmax - onehot."""
    gradients = softmax(logits)
    gradients[np.arange(len(labels)), labels] -= 1
    return gradients


def class_means(values: np.ndarray, labels: np.ndarray, n_classes: int, *, otherwise: float) -> np.ndarray:
    """(C,) mean of (N,) values within each class; `otherwise` for a class without images."""
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=values, minlength=n_classes)
    return np.divide(sums, counts, out=np.full(n_classes, float(otherwise)), where=counts > 0)


def class_error(probabilities: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) mean probability that is missing at the true class; the overall mean for a class without images.

    Smoother than 1 - recall: on few validation images, counts of mistakes are mostly noise.
    """
    missing = 1 - probabilities[np.arange(len(labels)), labels]
    return class_means(missing, labels, n_classes, otherwise=missing.mean() if len(missing) else 1.0)


def class_recall(predicted: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """(C,) fraction of each class's images that are predicted right; NaN for a class without images."""
    return class_means(predicted == labels, labels, n_classes, otherwise=np.nan)


def shrunk(weights: np.ndarray, shrink: float) -> np.ndarray:
    """(C,) shares that sum to 1: weights >= 0 (all zero: equal), mixed with equal shares by `shrink` in [0, 1]."""
    total = weights.sum()
    share = weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
    return (1 - shrink) * share + shrink / len(weights)
