"""Stage 5, active rounds: which classes, and which samples, lower the validation error most.

First version: class counts from the validation error, samples by the smallest margin of an ensemble retrained on what
is selected.
"""

import numpy as np

from dqas_lib.budget import largest_remainder


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
    counts = np.bincount(labels, minlength=n_classes)
    sums = np.bincount(labels, weights=missing, minlength=n_classes)
    return np.divide(sums, counts, out=np.full(n_classes, missing.mean() if len(missing) else 1.0), where=counts > 0)


def counts_by_error(
    error: np.ndarray, selected: np.ndarray, budget: int, caps: np.ndarray, shrink: float
) -> np.ndarray:
    """(C,) counts after a round: proportional to the class error, shrunk toward equal shares, never below `selected`.

    shrink: kappa in [0, 1]; 0 follows the error, 1 gives equal shares.
    """
    share = error / error.sum() if error.sum() > 0 else np.full(len(error), 1 / len(error))
    return largest_remainder((1 - shrink) * share + shrink / len(error), budget, caps=caps, floors=selected)
