"""Methods that look at last-layer gradients: CRAIG, GradMatch, GLISTER; and DeepFool, at gradients of the pixels."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.methods.deepfool import DeepFool, perturbation_norms
from dqas_lib.methods.gradient_matching import (
    Craig,
    Glister,
    GradMatch,
    closeness,
    greedy_validation_gain,
    non_negative_solution,
)
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.networks import Network


def random_gradients(n: int, c: int, d: int, seed: int) -> tuple[Gradients, np.ndarray]:
    """Gradients in factors, and the same written out as (n, C (d + 1))."""
    rng = np.random.default_rng(seed)
    gradients = Gradients.of(np.maximum(rng.normal(size=(n, d)), 0), rng.normal(size=(n, c)), rng.integers(0, c, n))
    return gradients, np.einsum("ic,id->icd", gradients.g, gradients.h).reshape(n, -1)


def test_the_factors_are_the_gradients_of_the_last_layer():
    """Against autograd, and every operation against the long vectors."""
    rng = np.random.default_rng(0)
    h, labels = rng.normal(size=(5, 3)), np.array([0, 1, 2, 1, 0])
    weight, bias = torch.tensor(rng.normal(size=(3, 3))), torch.tensor(rng.normal(size=3))
    logits = h @ weight.numpy().T + bias.numpy()
    gradients = Gradients.of(h, logits, labels)
    long = np.einsum("ic,id->icd", gradients.g, gradients.h)
    for i in range(5):
        w, b = weight.clone().requires_grad_(True), bias.clone().requires_grad_(True)
        nn.functional.cross_entropy((torch.tensor(h[i]) @ w.T + b)[None], torch.tensor(labels[i : i + 1])).backward()
        assert long[i, :, 0] == pytest.approx(b.grad.numpy())
        assert long[i, :, 1:] == pytest.approx(w.grad.numpy())
    long = long.reshape(5, -1)
    assert gradients.inner(gradients.take(np.array([3, 1]))) == pytest.approx(long @ long[[3, 1]].T)
    assert gradients.norms == pytest.approx(np.linalg.norm(long, axis=1))
    weights = rng.random(5)
    assert gradients.total(weights).ravel() == pytest.approx(weights @ long)
    assert gradients.against(gradients.total()) == pytest.approx(long @ long.sum(axis=0))
    assert gradients.unit().norms == pytest.approx(np.ones(5))


# ------------------------------------------------------------------------------------------------ CRAIG


def test_craig_finds_the_medoids_and_weighs_them_by_their_clusters(toy):
    """Two classes of logits make three groups of equal gradients in one class: 5, 3 and 1 images."""
    logits = np.repeat([[2.0, 0.0], [0.0, 0.0], [-3.0, 0.0]], [5, 3, 1], axis=0)
    pool = toy([0] * 9, n_classes=2, features=np.ones((9, 2)), logits=logits)
    choice = Craig().select(pool, 3)
    groups = np.repeat([0, 1, 2], [5, 3, 1])
    assert sorted(groups[choice.positions]) == [0, 1, 2]
    weight_of = dict(zip(groups[choice.positions], choice.weights, strict=True))
    assert weight_of == {0: 5, 1: 3, 2: 1}


def test_craigs_greedy_minimises_the_distance_to_the_nearest():
    gradients, long = random_gradients(40, 3, 4, seed=1)
    distance = np.linalg.norm(long[:, None] - long[None], axis=2)
    assert closeness(gradients)(np.arange(40)) == pytest.approx(
        2 * np.linalg.norm(long, axis=1).max() - distance, abs=1e-6
    )
    picked: list[int] = []
    for _ in range(8):
        cost = [np.inf if j in picked else distance[:, [*picked, j]].min(axis=1).sum() for j in range(40)]
        picked.append(int(np.argmin(cost)))
    order, weights = Craig().match(gradients, 8)
    assert order.tolist() == picked
    assert weights.tolist() == np.bincount(distance[:, picked].argmin(axis=1), minlength=8).tolist()


# ------------------------------------------------------------------------------------------------ GradMatch


def test_gradmatch_recovers_a_sparse_sum():
    """A gradient equal to all the others together is picked first, and with almost no penalty it alone matches."""
    gradients, long = random_gradients(6, 3, 20, seed=2)
    order, weights = GradMatch(ridge=1e-9).match(gradients, 6)
    assert weights @ long[order] == pytest.approx(long.sum(axis=0), rel=1e-5)
    assert weights == pytest.approx(np.ones(6), rel=1e-5)


def test_gradmatch_weights_solve_the_ridge_problem_with_signs():
    gradients, long = random_gradients(60, 4, 5, seed=3)
    order, weights = GradMatch(ridge=0.1).match(gradients, 15)
    assert len(set(order)) == 15
    assert weights.min() >= 0
    penalty = 0.1 * (gradients.norms**2).mean()
    rows = np.vstack([long[order].T, np.sqrt(penalty) * np.eye(15)])
    expected, _ = nnls(rows, np.r_[long.sum(axis=0), np.zeros(15)])
    assert weights == pytest.approx(expected, abs=1e-6)
    assert order[0] == (long @ long.sum(axis=0)).argmax()


def test_the_error_of_matching_falls_with_every_pick():
    gradients, long = random_gradients(80, 5, 6, seed=4)
    target = long.sum(axis=0)
    errors = []
    for k in (1, 5, 20, 60):
        order, weights = GradMatch(ridge=1e-3).match(gradients, k)
        errors.append(np.linalg.norm(target - weights @ long[order]) / np.linalg.norm(target))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def test_non_negative_solution_is_scipys():
    rng = np.random.default_rng(5)
    for _ in range(30):
        rows = rng.normal(size=(12, 8))
        right = rng.normal(size=12)
        found = non_negative_solution(rows.T @ rows, rows.T @ right)
        assert found == pytest.approx(nnls(rows, right)[0], abs=1e-8)


def test_gradmatch_without_gradients_has_no_weights(toy):
    logits = np.where(np.arange(2) == 0, 900.0, -900.0) * np.ones((5, 1))
    choice = GradMatch().select(toy([0] * 5, n_classes=2, features=np.ones((5, 2)), logits=logits), 3)
    assert choice.weights is None
    assert len(set(choice.positions)) == 3
    with pytest.raises(InputError, match="ridge must be a number above 0; got 0"):
        GradMatch(ridge=0)


# ------------------------------------------------------------------------------------------------ GLISTER


def glister_toy() -> dict[str, np.ndarray]:
    """Two directions of features, both labeled 0 and undecided; validation has 3 images of one and 2 of the other."""
    features = np.array([[9.0, 0]] * 6 + [[0, 9.0]] * 6 + [[9.0, 0]] * 3 + [[0, 9.0]] * 2)
    return {"features": features, "logits": np.zeros((17, 2)), "labels": np.zeros(17, dtype=np.int64)}


def picks(updates: int) -> np.ndarray:
    return greedy_validation_gain(
        **glister_toy(), held=np.arange(17) >= 12, caps=np.array([12, 12]), n_picks=6, updates=updates, eta=1.0
    )


def test_glisters_update_runs():
    """Without the update all six picks lie along the direction that validation has more of; with it, the loss there
    falls after a few steps, and the other direction gains more."""
    assert (picks(1) < 6).all()
    with_updates = picks(6)
    assert with_updates[0] < 6
    assert (with_updates >= 6).any()
    assert (with_updates < 6).any()


def test_glisters_first_gain_is_the_fall_of_the_validation_loss():
    rng = np.random.default_rng(6)
    features, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
    weight = rng.normal(size=(3, 5))
    h = np.concatenate([np.ones((30, 1)), features], axis=1)
    validation, candidates = np.arange(10), np.arange(10, 30)

    def loss(w: np.ndarray) -> float:
        logits = h[validation] @ w.T
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(10), labels[validation]]).sum())

    gradients = Gradients.of(features, h @ weight.T, labels)
    step = 1e-6
    falls = [(loss(weight) - loss(weight - step * np.outer(gradients.g[j], gradients.h[j]))) / step for j in candidates]
    found = greedy_validation_gain(
        features,
        h @ weight.T,
        labels,
        held=np.arange(30) < 10,
        caps=np.full(3, 30),
        n_picks=5,
        updates=1,
        eta=0.1,
    )
    assert found.tolist() == (10 + np.argsort(-np.array(falls))[:5]).tolist()


def test_glister_takes_held_out_images_last(toy):
    rng = np.random.default_rng(7)
    pool = toy(np.repeat([0, 1], 20), features=rng.normal(size=(40, 3)), logits=rng.normal(size=(40, 2)))
    held = set(np.flatnonzero(pool.held_out(0.2)["held"]))
    for balance in ("proportional", "free"):
        method = Glister(balance=balance, validation=0.2)
        assert not held & set(method.select(pool, 32).positions)
        assert sorted(method.select(pool, 40).positions) == list(range(40))
        assert len(held & set(method.select(pool, 35).positions)) == 3
    with pytest.raises(InputError, match="updates must be a whole number >= 1; got 0"):
        Glister(updates=0)
    with pytest.raises(InputError, match=r"validation must be a number in \(0, 1\); got 1"):
        Glister(validation=1)


# ------------------------------------------------------------------------------------------------ DeepFool


def linear_network(weight: np.ndarray) -> Network:
    """Logits = weight @ (three channels of a one-pixel image), without normalization."""
    network = Network(nn.Identity(), 3, len(weight))
    network.mean.zero_()
    network.std.fill_(1.0)
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor(weight))
        network.head.bias.copy_(torch.arange(len(weight), dtype=torch.float32))
    return network


def test_deepfool_is_the_distance_to_the_nearest_boundary_of_a_linear_network():
    weight = np.random.default_rng(8).normal(size=(4, 3)).astype(np.float32)
    images = np.random.default_rng(9).integers(0, 256, (300, 1, 1, 3), dtype=np.uint8)
    logits = images[:, 0, 0] @ weight.T.astype(float) + np.arange(4)
    expected = []
    for row in logits:
        top = row.argmax()
        rest = [k for k in range(4) if k != top]
        expected.append(min((row[top] - row[k]) / np.linalg.norm(weight[top] - weight[k]) for k in rest))
    found = perturbation_norms(linear_network(weight), images, rivals=3, steps=10, overshoot=0.02)
    assert found == pytest.approx(np.array(expected), rel=2e-3, abs=2e-3)  # 300 images: the last batch has 44
    alone = perturbation_norms(linear_network(weight), images[299:], rivals=3, steps=10, overshoot=0.02)
    assert alone == pytest.approx(found[299:], rel=1e-5)


def test_deepfool_of_one_class_and_its_options():
    images = np.zeros((2, 1, 1, 3), dtype=np.uint8)
    network = linear_network(np.ones((1, 3), dtype=np.float32))
    assert np.isinf(perturbation_norms(network, images, rivals=4, steps=3, overshoot=0.02)).all()
    assert all(parameter.requires_grad for parameter in network.parameters())
    with pytest.raises(InputError, match="steps must be a whole number >= 1; got 0"):
        DeepFool(steps=0)
