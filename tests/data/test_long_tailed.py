"""Long-tailed versions and macro and micro accuracy."""

import numpy as np
import pytest

from dqas_lib.active.round import Rounds
from dqas_lib.budget.initialization import Equal, Proportional
from dqas_lib.core.errors import InputError
from dqas_lib.data.long_tailed import long_tailed, long_tailed_counts, macro_micro
from dqas_lib.methods.dqas import DQAS
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting


def test_the_profile_is_exponential():
    assert long_tailed_counts(3, 100, 100).tolist() == [100, 10, 1]
    assert long_tailed_counts(10, 5000, 10)[[0, -1]].tolist() == [5000, 500]
    assert long_tailed_counts(4, 50, 1).tolist() == [50] * 4
    assert long_tailed_counts(1, 50, 10).tolist() == [50]
    assert long_tailed_counts(3, 5, 1000).tolist() == [5, 1, 1]


def test_a_long_tailed_set_has_the_profile_exactly_and_keeps_ids(digits):
    images = digits.train
    tail = long_tailed(images, 10, seed=4)
    wanted = long_tailed_counts(10, int(images.class_counts.max()), 10)
    sizes = np.sort(tail.class_counts)[::-1]
    # a class may have an image or two less than the largest one
    assert (np.abs(sizes - np.minimum(wanted, images.class_counts.max())) <= 5).all()
    assert (sizes[1:] == wanted[1:]).all()
    assert np.array_equal(tail.images, images.select(tail.ids).images)
    assert long_tailed(images, 10, seed=4).ids.tolist() == tail.ids.tolist()
    assert long_tailed(images, 10, seed=5).class_counts.tolist() != tail.class_counts.tolist()
    shuffled = images.take(np.random.default_rng(0).permutation(len(images)))
    assert set(long_tailed(shuffled, 10, seed=4).ids.tolist()) == set(tail.ids.tolist())
    with pytest.raises(InputError, match=r"must be a number >= 1; got 0\.5"):
        long_tailed(images, 0.5)


@pytest.mark.parametrize("initialization", [Equal(), Proportional()])
def test_class_caps_are_met_exactly_on_imbalanced_data(digits, initialization):
    tail = long_tailed(digits.train, 20, seed=0)
    recipe = Recipe("tiny", steps=12, batch_size=16)
    method = DQAS("none", initialization, 0.1, bins=None, rounds=Rounds(learners=1))
    for ratio in (0.2, 0.6, 0.85):
        subset = quantize(tail, ratio, method=method, setting=Setting(recipe=recipe))
        assert len(subset) == round(ratio * len(tail))
        assert (subset.class_counts <= tail.class_counts).all()
    # at 85 % the small classes are full, but for their held-out images
    rest, _ = tail.hold_out(method.validation, 0)
    small = tail.class_counts <= 15
    assert small.any()
    assert subset.class_counts[small].tolist() == rest.class_counts[small].tolist()


def test_macro_and_micro_accuracy_by_hand():
    macro, micro = macro_micro(np.array([1.0, 0.5, np.nan]), np.array([30, 10, 0]))
    assert macro == pytest.approx(0.75)
    assert micro == pytest.approx(35 / 40)
    with pytest.raises(InputError, match="every class is empty"):
        macro_micro(np.zeros(2), np.zeros(2, dtype=int))
