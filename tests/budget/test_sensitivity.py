"""Class learning curves: exact recovery, intervals that cover, and a planted truth."""

from dataclasses import replace

import numpy as np
import pytest
from planted import TINY, planted

from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.compare import compare
from dqas_lib.training.setting import Setting

SIZES = np.tile(np.array([[10.0], [20.0], [40.0], [80.0]]), (1, 3))


def curve(n, a, b, e):
    return np.asarray(a) * np.asarray(n) ** -np.asarray(b) + np.asarray(e)


@pytest.mark.parametrize("shared", [True, False])
def test_curves_without_noise_are_recovered(shared):
    a, b, e = np.array([1.0, 0.4, 2.0]), np.full(3, 0.5), np.array([0.02, 0.1, 0.0])
    errors = curve(SIZES, a, b, e)[None]
    found = fit_curves(SIZES, errors, shared_exponent=shared)
    np.testing.assert_allclose(found.b, 0.5)
    np.testing.assert_allclose(found.a, a, rtol=1e-9)
    np.testing.assert_allclose(found.e, e, atol=1e-9)
    np.testing.assert_allclose(found.error(40), errors[0, 2])
    # -d err / d ln n by a small step
    step = (found.error(30 * np.exp(-1e-5)) - found.error(30 * np.exp(1e-5))) / 2e-5
    np.testing.assert_allclose(found.sensitivity(30).value, step, rtol=1e-5)


def test_a_class_of_its_own_size_is_fitted_at_its_own_size():
    sizes = SIZES * np.array([1.0, 0.5, 2.0])
    a = np.array([1.0, 1.0, 1.0])
    found = fit_curves(sizes, curve(sizes, a, 0.5, 0.05)[None])
    np.testing.assert_allclose(found.a, a, rtol=1e-9)


def test_the_bounds_hold_for_errors_that_rise_or_vanish():
    rising = np.tile(np.array([[0.1], [0.2], [0.3], [0.4]]), (1, 3))[None]
    found = fit_curves(SIZES, rising)
    assert (found.a == 0).all()
    np.testing.assert_allclose(found.e, 0.25)
    steep = curve(SIZES, 5.0, 1.5, 0.0)[None] - 0.001  # would need e < 0
    found = fit_curves(SIZES, steep)
    assert (found.e >= 0).all()
    assert (fit_curves(SIZES, np.zeros((2, 4, 3))).sensitivity(40).value == 0).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """5 seeds, noise of a fifth of the smallest sensitivity; 100 repetitions of 3 classes."""
    rng = np.random.default_rng(0)
    a, b, e = np.array([1.0, 0.5, 2.0]), 0.5, 0.05
    truth = a * b * 40.0**-b
    covered = []
    for repetition in range(100):
        errors = curve(SIZES, a, b, e) + rng.normal(0, 0.008, (5, 4, 3))
        found = fit_curves(SIZES, errors, seed=repetition).sensitivity(40)
        covered.append((found.low <= truth) & (truth <= found.high))
    assert 0.9 <= np.mean(covered) <= 0.995


def test_classes_are_named_only_where_the_interval_separates_them():
    rng = np.random.default_rng(1)
    wrong, right = 0, 0
    for repetition in range(50):
        # three ordinary classes, one sensitive, one stable
        errors = curve(np.tile(SIZES[:, :1], (1, 5)), np.array([1.0, 1.0, 1.0, 3.0, 0.1]), 0.5, 0.05) + rng.normal(
            0, 0.01, (5, 4, 5)
        )
        named = fit_curves(np.tile(SIZES[:, :1], (1, 5)), errors, seed=repetition).named(40)
        right += int(named[3] == 1) + int(named[4] == -1)
        equal = curve(SIZES, 1.0, 0.5, 0.05) + rng.normal(0, 0.03, (5, 4, 3))
        wrong += (fit_curves(SIZES, equal, seed=repetition).named(40) != 0).sum()
    assert right >= 95  # of 100
    assert wrong <= 15  # of 150 classes that are all alike
    alone = fit_curves(SIZES, curve(SIZES, np.array([1.0, 2.0, 3.0]), 0.5, 0.05)[None])
    assert np.isnan(alone.sensitivity(40).low).all()
    assert (alone.named(40) == 0).all()


def test_pilots_find_planted_sensitive_classes():
    images = planted(0)
    rest, validation = images.hold_out(0.3, 0)
    recipe = replace(TINY, steps=60, pad=0.0)
    judged = DataSet("planted", rest, validation)
    comparison = compare(judged, ["random"], [0.08, 0.16, 0.32], [0, 1, 2], setting=Setting(recipe=recipe), workers=1)
    runs = comparison.pilots("random")
    assert runs.errors.shape == runs.recall.shape == (3, 3, 6)
    assert runs.sizes[:, 0].tolist() == [4, 8, 16]
    assert runs.accuracy[:, 2].mean() > runs.accuracy[:, 0].mean()
    curves = fit_curves(runs.sizes, runs.errors)
    found = curves.sensitivity(8.0).value
    assert set(np.argsort(found)[-2:]) == {1, 4}
    assert set(np.flatnonzero(curves.named(8.0) == 1)) <= {1, 4}


def test_bad_values_are_refused():
    with pytest.raises(InputError, match=r"errors must be \(seeds, ratios, classes\) for sizes \(4, 3\); got \(4, 3\)"):
        fit_curves(SIZES, np.zeros((4, 3)))
    with pytest.raises(InputError, match="at least two different sizes"):
        fit_curves(SIZES[:1].repeat(4, 0), np.zeros((1, 4, 3)))
    with pytest.raises(InputError, match="3 errors are NaN or infinite"):
        fit_curves(SIZES, np.where(np.arange(4)[:, None] == 1, np.nan, np.zeros((1, 4, 3))))
