"""The kernel look-ahead against its definition."""

import numpy as np
import pytest
from views import view_of

from dqas_lib.active.kernel import Kernel
from dqas_lib.core.errors import InputError


def missing(s, y, v, truth, width):
    """(V,) probability missing at the true class, by a kernel classifier of s with labels y."""
    s, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, v))
    kernel = np.exp((s @ v.T - 1) / width)
    return 1 - (kernel * (y[:, None] == truth[None])).sum(axis=0) / kernel.sum(axis=0)


@pytest.mark.parametrize("known", [True, False])
def test_it_equals_adding_every_candidate_to_a_kernel_classifier(known):
    view = view_of(n_learners=1, labels_known=known)
    features = view.ensemble().features[0].astype(np.float64)
    parts = (
        features[view.selected],
        view.labels[view.selected],
        features[view.validation],
        view.labels[view.validation],
    )
    before = {width: missing(*parts, width).mean() for width in Kernel().widths}
    width = min(before, key=before.get)
    belief = view.belief(view.ensemble())

    def added(x, label):
        s, y, v, truth = parts
        return missing(np.vstack([s, x]), np.append(y, label), v, truth, width).mean()

    exact = [
        sum(p * (before[width] - added(features[row], label)) for label, p in enumerate(belief[place]))
        for place, row in enumerate(view.candidates)
    ]
    np.testing.assert_allclose(Kernel()(view).samples, exact, atol=1e-6)


def test_an_image_far_from_all_others_is_worth_nothing():
    """A candidate at right angles to every other image."""
    view = view_of(n_learners=1)
    features = view.ensemble().features
    features[..., -1] = 0
    features[0, view.candidates[0]] = np.eye(features.shape[-1])[-1]
    estimate = Kernel((0.05,))(view)
    assert abs(estimate.samples[0]) < 1e-6
    assert estimate.samples.max() > 1e-4
    assert estimate.classes.shape == (4,)


def test_it_needs_validation_images():
    with pytest.raises(InputError, match="estimator 'kernel' needs validation images"):
        Kernel()(view_of(validation=np.zeros(0, dtype=np.int64)))
