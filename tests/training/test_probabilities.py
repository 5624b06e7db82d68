import numpy as np
import pytest
import scipy.special
import scipy.stats

from dqas_lib.training.probabilities import (
    class_recall,
    entropy,
    log_softmax,
    logit_gradients,
    margin,
    softmax,
    true_class_margin,
)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_softmax_and_entropy_are_scipys_to_the_last_bit(kind):
    logits = (30 * np.random.default_rng(0).normal(size=(200, 7))).astype(kind)
    assert np.array_equal(softmax(logits), scipy.special.softmax(logits, axis=1))
    assert np.array_equal(log_softmax(logits), scipy.special.log_softmax(logits, axis=1))
    np.testing.assert_allclose(entropy(logits), scipy.stats.entropy(softmax(logits), axis=1), rtol=1e-4, atol=1e-6)


def test_margins_by_hand_of_probabilities_and_of_logits():
    p = np.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    assert margin(p) == pytest.approx([0.5, 0.05])
    assert true_class_margin(p, np.array([0, 2])) == pytest.approx([0.5, -0.15])
    assert true_class_margin(-p, np.array([0, 2])) == pytest.approx([-0.6, 0.1])
    assert margin(p[:, :1]).tolist() == [1, 1]
    assert true_class_margin(p[:, :1], np.array([0, 0])).tolist() == [0.7, 0.4]


def test_gradients_of_the_logits_are_softmax_minus_onehot():
    logits = np.log([[0.5, 0.25, 0.25]])
    np.testing.assert_allclose(logit_gradients(logits, np.array([1])), [[0.5, -0.75, 0.25]])


def test_recall_by_hand_and_nan_for_an_absent_class():
    recall = class_recall(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)
    assert recall[:2] == pytest.approx([1, 2 / 3])
    assert np.isnan(recall[2])
