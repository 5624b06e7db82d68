"""Toy workbenches: features and predictions written down in the test, no network trained."""

from collections.abc import Callable

import numpy as np
import pytest
from toys import toy_images

from dqas_lib.methods.base import Workbench


@pytest.fixture
def toy() -> Callable[..., Workbench]:
    """toy(labels, ids=None, n_classes=None, seed=0, labelled=True, **given) -> Workbench with that given work."""

    def make(labels, ids=None, n_classes=None, seed=0, labelled=True, **given) -> Workbench:
        arrays = {name: np.asarray(values, dtype=np.float32) for name, values in given.items()}
        return Workbench(toy_images(labels, ids, n_classes), seed=seed, given=arrays, labelled=labelled)

    return make
