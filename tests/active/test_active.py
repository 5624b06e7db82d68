"""Estimators against plain definitions, batched look-ahead against refitting, planted duplicates, speed."""

from dataclasses import replace

import numpy as np
import pytest
from views import labeled, made, view_of

from dqas_lib.active.counts import shares_by_gain
from dqas_lib.active.estimators import ESTIMATORS, Gradient, Kernel, Margin, Retrain, TrueMargin, balanced_design
from dqas_lib.active.ridge import Ridge, RidgeHead, with_ones
from dqas_lib.active.round import Learners, View
from dqas_lib.active.sampling import spread
from dqas_lib.budget.class_counts import largest_remainder
from dqas_lib.core.errors import InputError
from dqas_lib.training.probabilities import class_error, logit_gradients, margin, shrunk, true_class_margin


def test_margins_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(margin(p), [0.2, 0.7])
    np.testing.assert_allclose(true_class_margin(p, np.array([1, 2])), [-0.2, 0.7])
    assert margin(np.ones((2, 1))).tolist() == [1, 1]


def test_class_error_is_the_missing_probability_and_falls_back_to_the_mean():
    p = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    error = class_error(p, np.array([0, 0, 1]), 3)
    np.testing.assert_allclose(error, [0.3, 0.2, (0.1 + 0.5 + 0.2) / 3])


def refitted_error(x, y, v, t, penalty):
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
    return ((v @ weights - t) ** 2).sum() / len(v)


def test_ridge_look_ahead_equals_refitting_with_each_candidate_added():
    view = view_of()
    features = view.ensemble().features[0].astype(np.float64)
    x, y = features[view.selected], view.onehot(view.selected)
    v, t = features[view.validation], view.onehot(view.validation)
    head = RidgeHead.fit(x, y, v, t, (0.1,))
    ones = [with_ones(part) for part in (x, v, features[view.candidates])]
    before = refitted_error(ones[0], y, ones[1], t, head.penalty)
    assert head.error == pytest.approx(before, rel=1e-9)
    targets = view.onehot(view.candidates)
    exact = [
        before - refitted_error(np.vstack([ones[0], u]), np.vstack([y, z]), ones[1], t, head.penalty)
        for u, z in zip(ones[2], targets, strict=True)
    ]
    np.testing.assert_allclose(head.reduction(features[view.candidates], targets), exact, atol=1e-10)
    # chunks of five at once
    chunks, z = features[view.candidates][:40].reshape(8, 5, -1), targets[:40].reshape(8, 5, -1)
    exact = [
        before - refitted_error(np.vstack([ones[0], with_ones(u)]), np.vstack([y, k]), ones[1], t, head.penalty)
        for u, k in zip(chunks, z, strict=True)
    ]
    np.testing.assert_allclose(head.chunk_reduction(chunks, z), exact, atol=1e-10)


def test_ridge_takes_the_penalty_with_the_least_validation_error():
    view = view_of()
    features = view.ensemble().features[0]
    parts = (
        features[view.selected],
        view.onehot(view.selected),
        features[view.validation],
        view.onehot(view.validation),
    )
    errors = [RidgeHead.fit(*parts, (penalty,)).error for penalty in Ridge().penalties]
    assert RidgeHead.fit(*parts, Ridge().penalties).error == min(errors)


def test_the_true_expectation_over_labels_is_the_mean_over_every_label():
    view = view_of()
    features = view.ensemble().features[0]
    head = RidgeHead.fit(
        features[view.selected],
        view.onehot(view.selected),
        features[view.validation],
        view.onehot(view.validation),
        (0.1,),
    )
    belief = np.random.default_rng(1).dirichlet(np.ones(4), len(view.candidates))
    x = features[view.candidates]
    each = [head.reduction(x, np.tile(np.eye(4)[label], (len(x), 1))) for label in range(4)]
    np.testing.assert_allclose(head.reduction(x, belief), (np.stack(each, 1) * belief).sum(1), atol=1e-12)


def test_gradient_equals_the_inner_product_of_long_gradients():
    view = view_of(n_learners=1)
    learners = view.ensemble()
    h, g = learners.features[0], logit_gradients(learners.logits[0].astype(float), view.labels)
    long = np.concatenate([g, (g[:, :, None] * h[:, None, :]).reshape(len(g), -1)], axis=1)
    plain = long[view.candidates] @ long[view.validation].mean(axis=0)
    estimate = Gradient()(view)
    np.testing.assert_allclose(estimate.samples, plain, rtol=1e-5, atol=1e-7)
    for label in range(4):
        members = view.labels[view.candidates] == label
        assert estimate.classes[label] == pytest.approx(plain[members].mean(), rel=1e-4, abs=1e-6)


def test_a_single_learner_expects_no_change_to_first_order():
    assert np.abs(Gradient()(view_of(n_learners=1, labels_known=False)).samples).max() < 1e-6
    assert np.abs(Gradient()(view_of(n_learners=3, labels_known=False)).samples).max() > 1e-3


@pytest.mark.parametrize("name", ["margin", "ridge", "gradient"])
def test_without_labels_the_candidates_labels_are_not_read(name):
    view = view_of(labels_known=False)
    lied = view.labels.copy()
    lied[view.candidates] = (lied[view.candidates] + 1) % 4
    first, second = ESTIMATORS[name](view), ESTIMATORS[name](replace(view, images=labeled(lied)))
    assert np.array_equal(first.samples, second.samples)
    assert first.classes is None
    # ... while with labels they do matter to the estimators that use them
    known = ESTIMATORS[name](replace(view, labels_known=True)).samples
    lied_known = ESTIMATORS[name](replace(view, labels_known=True, images=labeled(lied))).samples
    assert np.array_equal(known, lied_known) == (name == "margin")


def test_ridge_finds_the_class_that_is_still_badly_learnt():
    """Class 0 is spread over four clusters, of which the fitted images show one; the others over one cluster each."""
    rng = np.random.default_rng(0)
    n, dim = 400, 8
    labels = np.arange(n) % 4
    cluster = np.where(labels == 0, 4 + np.arange(n) // 4 % 4, labels)
    centers = 4 * np.eye(8)
    features = (centers[cluster] + rng.normal(0, 0.5, (n, dim))).astype(np.float32)[None]
    selected = np.flatnonzero(((labels > 0) | (cluster == 4)) & (np.arange(n) < 100))
    rest = np.setdiff1d(np.arange(n), selected)
    learners = Learners(features, np.zeros((1, n, 4), np.float32), (selected,))
    view = view_of()
    view = replace(
        view,
        images=labeled(labels),
        selected=selected,
        candidates=rest[::2],
        validation=rest[1::2],
        made=made(learners),
    )
    estimate = Ridge()(view)
    assert estimate.classes[0] > 3 * estimate.classes[1:].max()
    best = rest[::2][np.argsort(-estimate.samples)[:30]]
    assert (labels[best] == 0).all()
    assert (cluster[best] != 4).mean() > 0.8  # of class 0, the unseen clusters


@pytest.mark.parametrize("n_classes", [2, 3, 5, 10, 25])
def test_the_retraining_design_is_balanced_and_tells_the_classes_apart(n_classes):
    design = balanced_design(n_classes, np.random.default_rng(0))
    assert design.shape == (n_classes + 2, n_classes)
    assert (design[:-2].sum(axis=1) == 0).all()
    assert (design.sum(axis=0) == 0).all()
    assert np.linalg.matrix_rank(design) == n_classes


def test_retrain_recovers_the_effects_of_a_known_loss():
    """The loss is sum_c a_c n_c^-0.5 plus noise: each class's gain is 0.5 a_c n_c^-1.5."""
    labels = np.repeat(np.arange(5), 200)
    a = np.array([1.0, 1.0, 3.0, 1.0, 0.2])
    rng = np.random.default_rng(0)

    class Known(View):
        def retrained(self, positions):
            counts = np.bincount(labels[positions], minlength=5)
            return float((a * counts**-0.5).sum() + rng.normal(0, 0.002))

    within = np.arange(len(labels)) % 200
    view = Known(
        images=labeled(labels),
        selected=np.flatnonzero(within < 40),
        candidates=np.flatnonzero((within >= 40) & (within < 150)),
        validation=np.flatnonzero(within >= 150),
        pool_seed=0,
        number=1,
        n_learners=1,
        train=None,
    )
    gain = Retrain()(view).classes
    np.testing.assert_allclose(gain, 0.5 * a * 40**-1.5, rtol=0.25, atol=2e-4)
    assert gain.argmax() == 2
    assert gain.argmin() == 4


def test_labels_and_validation_images_are_asked_for_where_they_are_needed():
    unlabeled = view_of(labels_known=False)
    for estimator in (Retrain(), TrueMargin()):
        with pytest.raises(InputError, match=f"estimator '{estimator.name}' needs the candidates' labels"):
            estimator(unlabeled)
    none_judge = view_of(validation=np.zeros(0, dtype=np.int64))
    for estimator in (Ridge(), Kernel(), Gradient(), Retrain()):
        with pytest.raises(InputError, match=f"estimator '{estimator.name}' needs validation images"):
            estimator(none_judge)
    assert len(Margin()(none_judge).samples) == 40
    with pytest.raises(
        InputError, match=r"unknown estimator 'entropy'.*: the known ones are margin, true-margin, ridge"
    ):
        ESTIMATORS["entropy"]
    assert all(estimator.name == name for name, estimator in ESTIMATORS.items())


def test_features_that_are_not_numbers_are_refused():
    features = np.zeros((2, 5, 3), np.float32)
    features[1, 2, 0] = np.nan
    with pytest.raises(InputError, match="features of 1 of 2 learners are NaN or infinite: their training diverged"):
        Learners(features, np.zeros((2, 5, 4), np.float32), ())


def test_estimates_of_identical_images_are_equal_and_finite():
    learners = Learners(np.ones((2, 120, 6), np.float32), np.zeros((2, 120, 4), np.float32), (np.arange(40),) * 2)
    view = view_of(made=made(learners))
    for name in ("margin", "ridge", "gradient"):
        estimate = ESTIMATORS[name](view)
        assert np.isfinite(estimate.samples).all()
        assert np.isfinite(estimate.classes).all()
        for label in range(4):
            assert np.ptp(estimate.samples[view.labels[view.candidates] == label]) < 1e-9


def test_counts_follow_the_error_and_never_fall():
    error, have = np.array([0.1, 0.2, 0.7]), np.array([5, 5, 5])

    def counts(budget, shrink, caps=(99, 99, 99)):
        return largest_remainder(shrunk(error, shrink), budget, caps=np.array(caps), floors=have).tolist()

    assert counts(40, 0.0) == [5, 8, 27]
    assert counts(30, 1.0) == [10, 10, 10]
    assert counts(40, 0.0, caps=(99, 99, 20)) == [7, 13, 20]
    np.testing.assert_allclose(shrunk(np.array([3.0, 1.0]), 0.5), [0.625, 0.375])


def test_shares_by_gain_even_out_the_gains_of_power_law_curves():
    a, n = np.array([1.0, 2.0, 4.0]), np.array([50.0, 20.0, 30.0])
    shares = shares_by_gain(0.5 * a * n**-1.5, n)
    reached = 300 * shares / shares.sum()
    gains = 0.5 * a * reached**-1.5
    np.testing.assert_allclose(gains, gains[0])
    assert shares_by_gain(np.array([-1.0, 1.0]), np.array([10, 10]))[0] == 0


def test_planted_duplicates_are_not_picked_together():
    """30 copies of the best-scored image and of each of 70 others: by score alone the batch is one image 10 times."""
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, (70, 16)).astype(np.float32)
    scores = rng.uniform(0.2, 0.6, 70)
    scores[7] = 0.9
    features, worth = np.vstack([base, np.repeat(base[7:8], 30, axis=0)]), np.append(scores, np.full(30, 0.9))
    source = np.append(np.arange(70), np.full(30, 7))
    plain = spread(worth, features, 10, diversity=0.0)
    assert (source[plain] == 7).sum() == 10
    for diversity in (0.2, 0.5, 1.0):
        picks = spread(worth, features, 10, diversity=diversity)
        assert picks[0] == 7
        assert len(np.unique(source[picks])) == 10
        assert scores[source[picks]].mean() > scores.mean()
    # nor is a copy of what is selected already
    assert 7 not in source[spread(worth, features, 10, taken=base[7:8], diversity=0.5)]


def test_spread_takes_duplicates_when_nothing_else_is_left():
    features = np.ones((5, 3), np.float32)
    picks = spread(np.array([0.1, 0.5, 0.3, 0.4, 0.2]), features, 4, diversity=1.0)
    assert picks.tolist() == [1, 3, 2, 4]
    assert sorted(spread(np.zeros(5), np.zeros((5, 3)), 5, diversity=1.0).tolist()) == [0, 1, 2, 3, 4]


def test_learners_are_trained_once_and_on_what_they_should_be():
    """Two learners on all that is selected; cross-fitted, each on all but its fold, on which a head is fitted."""
    trained = []

    def train(positions, seed):
        trained.append((np.sort(positions).tolist(), seed))
        return np.ones((120, 6), np.float32), np.ones((120, 4), np.float32)

    view = view_of(train=train, made={})
    selected = view.selected.tolist()
    assert view.ensemble() is replace(view, samples_wanted=False).ensemble()
    assert [positions for positions, _ in trained] == [selected] * 2
    assert [fit.tolist() for fit in view.ensemble().fit] == [selected] * 2
    folds = view.cross_fitted()
    assert view.cross_fitted() is folds
    assert len(trained) == 4
    assert len({seed for _, seed in trained}) == 4
    for (positions, _), fit in zip(trained[2:], folds.fit, strict=True):
        assert sorted(positions + fit.tolist()) == selected
        assert abs(len(positions) - len(fit)) <= 4  # two halves of every class
    # one image can be left out of nothing
    alone = view_of(train=train, made={}, selected=np.array([5]))
    assert [fit.tolist() for fit in alone.cross_fitted().fit] == [[5], [5]]
    assert [positions for positions, _ in trained[4:]] == [[5], [5]]


def test_the_loss_of_a_retrained_learner_is_its_cross_entropy():
    view = view_of(n_learners=1)
    logits = view.ensemble().logits[0].astype(np.float64)[view.validation]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = probabilities[np.arange(len(logits)), view.labels[view.validation]]
    assert view.retrained(view.selected) == pytest.approx(-np.log(own).mean(), rel=1e-5)


def test_ridge_in_single_precision_ranks_the_candidates_as_in_double():
    view = view_of()
    features = view.ensemble().features[0]
    heads, reductions = [], []
    for kind in (np.float32, np.float64):
        part = features.astype(kind)
        head = RidgeHead.fit(
            part[view.selected], view.onehot(view.selected), part[view.validation], view.onehot(view.validation), (0.1,)
        )
        heads.append(head)
        reductions.append(head.reduction(part[view.candidates], view.onehot(view.candidates)))
    assert heads[0].error == pytest.approx(heads[1].error, rel=1e-5)
    assert not np.array_equal(*reductions)
    np.testing.assert_allclose(reductions[0], reductions[1], atol=1e-4 * np.abs(reductions[1]).max())


def test_ridge_looks_at_no_candidate_when_only_classes_are_asked_for(monkeypatch):
    view = view_of()
    both = Ridge()(view)
    monkeypatch.setattr(RidgeHead, "reduction", None)
    classes = Ridge()(replace(view, samples_wanted=False))
    assert classes.samples is None
    np.testing.assert_array_equal(classes.classes, both.classes)
