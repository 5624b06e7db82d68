"""TODO."""

import numpy as np


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
