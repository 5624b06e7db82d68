"""Toy pools: features and predictions written down in the test, no network trained."""

from collections.abc import Callable

import numpy as np
import pytest
from toys import toy_images

from dqas_lib.pool import Pool


@pytest.fixture
def toy() -> Callable[..., Pool]:
    """toy(labels, ids=None, n_classes=None, seed=0, labeled=True, **given) -> Pool with that given work."""

    def make(labels, ids=None, n_classes=None, seed=0, labeled=True, **given) -> Pool:
        arrays = {name: np.asarray(values, dtype=np.float32) for name, values in given.items()}
        return Pool(toy_images(labels, ids, n_classes), seed=seed, given=arrays, labeled=labeled)

    return make
