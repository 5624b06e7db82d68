"""Soft labels in a compressed set: what a teacher says of its images, in 8 bits per class [ours]."""

from collections.abc import Iterator

import numpy as np

from dqas_lib.core.files import npy_bytes
from dqas_lib.training.probabilities import softmax

MOST, KEPT = 10, 5  # of at most so many classes all probabilities are kept; of more, so many per image
FILE, CLASSES = "soft_labels.npy", "soft_classes.npy"


def soften(logits: np.ndarray) -> np.ndarray:
    """(N, C) uint8 probabilities in 255ths, of a teacher's logits; of more than MOST classes the KEPT largest."""
    shares = softmax(logits)
    levels = np.maximum((255 * shares).round(), shares == shares.max(axis=1, keepdims=True)).astype(np.uint8)
    if levels.shape[1] <= MOST:
        return levels
    classes = _largest(levels)
    return spread(np.take_along_axis(levels, classes, axis=1), classes, levels.shape[1])


def _largest(levels: np.ndarray) -> np.ndarray:
    return np.argsort(-levels.astype(np.int16), axis=1, kind="stable")[:, :KEPT]


def spread(levels: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """(N, C) uint8 soft labels of the (N, KEPT) largest ones and their classes; the others are 0."""
    soft = np.zeros((len(levels), n_classes), dtype=np.uint8)
    np.put_along_axis(soft, classes.astype(np.int64), levels, axis=1)
    return soft


def files_of(soft: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files that hold (N, C) soft labels."""
    if (n_classes := soft.shape[1]) > MOST:
        classes = _largest(soft)
        soft = np.take_along_axis(soft, classes, axis=1)
        yield CLASSES, npy_bytes(classes.astype(np.uint8 if n_classes <= 256 else np.uint16))
    yield FILE, npy_bytes(soft)
