"""Imbalanced data: long-tailed versions of a data set, and the accuracies that tell them apart [abstract]."""

import numpy as np

from dqas_lib.core.checks import kinds, number
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import generator
from dqas_lib.data.image_set import DataSet, ImageSet


@kinds
def long_tailed_counts(n_classes: int, largest: int, factor: float) -> np.ndarray:
    """(C,) images of each class: largest * factor^(-c / (C - 1)), rounded, at least 1 [Cui et al., CVPR 2019].

    factor: The imbalance factor, the largest class's size over the smallest's, >= 1.
    """
    number("the imbalance factor (largest class / smallest class)", factor, 1)
    places = np.arange(n_classes) / max(n_classes - 1, 1)
    return np.maximum(np.round(largest * float(factor) ** -places), 1).astype(np.int64)


@kinds
def long_tailed(images: ImageSet, factor: float, seed: int = 0) -> ImageSet:
    """A long-tailed version: class sizes fall exponentially, by `factor` from the first class to the last.

    Which class comes first is drawn by the seed, and so is which images of a class are kept; ids stay. Every class
    keeps exactly the profile's number of images, or all it has if that is less; a class without images stays empty.
    """
    sizes = images.class_counts
    if not len(images):
        raise InputError("there are no images to make long-tailed")
    order = generator(seed, "long-tailed order").permutation(images.n_classes)
    wanted = np.empty(images.n_classes, dtype=np.int64)
    wanted[order] = long_tailed_counts(images.n_classes, int(sizes.max()), factor)
    kept = []
    for label, count in enumerate(np.minimum(wanted, sizes)):
        members = np.flatnonzero(images.labels == label)
        members = members[np.argsort(images.ids[members], kind="stable")]
        kept.append(generator(seed, "long-tailed", label).permutation(members)[:count])
    return images.take(np.sort(np.concatenate(kept)))


def macro_micro(recall: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """(macro, micro) accuracy from (C,) recall and (C,) images of each class.

    Macro is the mean over the classes, micro the mean over the images; classes without images do not count.
    """
    there = counts > 0
    if not there.any():
        raise InputError("accuracy needs at least one image; every class is empty")
    return float(recall[there].mean()), float((recall[there] * counts[there]).sum() / counts[there].sum())


@kinds
def imbalanced(data: DataSet, factor: float) -> DataSet:
    """The data set with long-tailed training images: the largest class `factor` times the smallest; 1 changes nothing.

    See `long_tailed`; the test images stay as they are. It is named after the factor ("digits-lt10").
    """
    if factor == 1:
        return data
    return DataSet(f"{data.name}-lt{factor:g}", train=long_tailed(data.train, factor), test=data.test)
