import numpy as np
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.training.features import unit_rows
from dqas_lib.training.gradients import Gradients


def test_rows_get_length_one_and_zero_rows_stay_zero():
    z = unit_rows(np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]]))
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, [[0.6, 0.8], [0, 0], [-1, 0]], atol=1e-7)


def test_nan_features_are_refused_and_counted():
    features = np.ones((4, 2))
    features[2, 1] = np.nan
    features[3, 0] = np.inf
    with pytest.raises(InputError, match=r"features of 2 of 4 images are NaN or infinite \(first: row 2\)"):
        unit_rows(features)
    with pytest.raises(InputError, match=r"got shape \(3,\)"):
        unit_rows(np.ones(3))


def test_factored_gradients_give_the_inner_products_of_the_full_ones():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 2, 1, 2, 0])
    head = torch.nn.Linear(4, 3)
    full = []
    for h, y in zip(features, labels, strict=True):
        head.zero_grad()
        torch.nn.functional.cross_entropy(head(torch.from_numpy(h))[None], torch.tensor([y])).backward()
        full.append(np.concatenate([head.bias.grad.numpy().ravel(), head.weight.grad.numpy().ravel()]))
    full = np.array(full)
    with torch.no_grad():
        logits = head(torch.from_numpy(features)).numpy()
    gradients = Gradients.of(features, logits, labels)
    np.testing.assert_allclose(gradients.inner(gradients), full @ full.T, atol=1e-5)
    assert gradients.g.shape == (5, 3)
