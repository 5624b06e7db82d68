import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_lib import InputError, quantize
from dqas_lib.active.round import Rounds
from dqas_lib.budget.initialization import Proportional
from dqas_lib.core.checks import check_ratio
from dqas_lib.methods import METHODS
from dqas_lib.methods.dqas import DQAS
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TINY = Recipe("tiny", steps=6, batch_size=8, lr=0.05)
CHEAP_DQAS = DQAS("none", Proportional(), 0.1, rounds=Rounds(learners=1))


@pytest.mark.parametrize("method", ["random", "dq", CHEAP_DQAS], ids=["random", "dq", "dqas"])
@pytest.mark.parametrize("budget", [1, 2, 7, 30, 55, 60])
def test_counts_sum_to_the_budget_at_every_ratio_down_to_one_image(blobs, method, budget):
    subset = quantize(blobs, budget / 60, method=method, seed=3, setting=Setting(recipe=TINY))
    assert len(subset) == subset.class_counts.sum() == budget
    assert len(set(subset.ids.tolist())) == budget
    for label, name in enumerate(blobs.class_names):
        assert (subset.images.labels == label).sum() == subset.class_counts[label], name


@settings(max_examples=200, deadline=None)
@given(ratio=st.floats(1e-9, 1.0), n=st.integers(1, 10**6))
def test_the_budget_is_the_rounded_share_or_a_clear_refusal(ratio, n):
    if round(ratio * n) < 1:
        with pytest.raises(InputError, match="leaves no image"):
            check_ratio(ratio, n)
    else:
        assert check_ratio(ratio, n) == round(ratio * n)


@pytest.mark.parametrize("ratio", [0, 0.0, -0.1, 1.5, math.nan, math.inf, "ten", None, True, {0.1}])
def test_an_unusable_ratio_is_refused_with_its_value(blobs, ratio):
    with pytest.raises(InputError) as caught:
        quantize(blobs, ratio, method="random")
    assert "ratio must be a number" in str(caught.value)
    assert f"got {ratio!r}" in str(caught.value) or f"got {str(ratio)!r}" in str(caught.value)


def test_a_ratio_that_leaves_no_image_says_what_would(blobs):
    with pytest.raises(InputError, match=r"ratio 0\.001 of 60 images leaves no image: give at least 0\.017"):
        quantize(blobs, 0.001, method="random")


def test_unknown_names_list_the_known_ones(blobs):
    with pytest.raises(
        InputError, match=r"unknown method 'dqsa' \(did you mean 'dqas'\?\): the known ones are .*\brandom\b"
    ):
        quantize(blobs, 0.5, method="dqsa")
    with pytest.raises(InputError, match="not a selection method: 7"):
        quantize(blobs, 0.5, method=7)
    with pytest.raises(InputError, match="unknown network"):
        quantize(blobs, 0.5, method="dq", setting=Setting(network="perceptron"))
    with pytest.raises(InputError, match="unknown recipe"):
        quantize(blobs, 0.5, method="random", setting=Setting(recipe="slow"))
    with pytest.raises(InputError, match="seed must be a whole number >= 0; got -1"):
        quantize(blobs, 0.5, method="random", seed=-1)
    with pytest.raises(InputError, match="unknown device"):
        quantize(blobs, 0.5, method="random", setting=Setting(device="quantum"))
    assert {"dqas", "dq", "random"} <= set(METHODS)


@pytest.mark.parametrize("method", ["random", "dq", CHEAP_DQAS], ids=["random", "dq", "dqas"])
def test_equal_seeds_give_equal_ids_and_others_differ(blobs, method):
    ids = [
        quantize(blobs, 0.3, method=method, seed=seed, setting=Setting(recipe=TINY)).ids.tolist() for seed in (1, 1, 2)
    ]
    assert ids[0] == ids[1]
    assert set(ids[0]) != set(ids[2])


def test_random_depends_on_ids_not_on_the_order_of_the_images(blobs):
    shuffled = blobs.take(np.random.default_rng(5).permutation(60))
    first = quantize(blobs, 0.25, method="random", seed=4)
    again = quantize(shuffled, 0.25, method="random", seed=4)
    assert first.ids.tolist() == again.ids.tolist()
    for image_id in first.ids:
        position = shuffled.positions([image_id])[0]
        assert np.array_equal(shuffled.images[position], blobs.images[blobs.positions([image_id])[0]])


def test_the_selection_says_how_it_was_made(blobs):
    subset = quantize(blobs, 0.5, method=CHEAP_DQAS, seed=9, setting=Setting(recipe=TINY))
    assert subset.settings["method"]["name"] == "dqas"
    assert subset.settings["method"]["rounds"] == {
        "name": "Rounds",
        "growth": 2.0,
        "learners": 1,
        "learner_scale": 0.25,
    }
    assert (subset.settings["seed"], subset.settings["network"], subset.n_pool) == (9, "small_cnn", 60)
    assert subset.seconds["all"] > 0
    counts = subset.trace["counts"]
    assert counts[-1].tolist() == subset.class_counts.tolist()
    assert (np.diff(counts, axis=0) >= 0).all()
    assert (subset.trace["round"] >= 0).sum() == 30


def test_dqas_drops_patches_first_unless_told_otherwise(blobs):
    quick = Setting(recipe=TINY)
    whole = DQAS(rounds=None)
    subset = quantize(blobs, 0.5, method=whole, setting=quick)
    assert subset.settings["patchify"]["order"] == "first"
    assert subset.kept.mean() == pytest.approx(0.75)
    again = quantize(blobs, 0.5, method=whole.without("patchify"), patchify="first", setting=quick)
    assert np.array_equal(again.images.images, subset.images.images)
    for plain in (
        quantize(blobs, 0.5, method=whole, patchify="none", setting=quick),
        quantize(blobs, 0.5, method=whole.without("patchify"), setting=quick),
        quantize(blobs, 0.5, method="dq", setting=quick),
    ):
        assert plain.settings["patchify"]["order"] == "none"
        assert plain.kept is None


def test_several_ratios_give_what_each_gives_alone(blobs):
    for method in ("random", "dq", CHEAP_DQAS):
        several = quantize(blobs, [0.5, 0.2], method=method, setting=Setting(recipe=TINY))
        for ratio, subset in zip((0.5, 0.2), several, strict=True):
            alone = quantize(blobs, ratio, method=method, setting=Setting(recipe=TINY))
            assert (alone.ids.tolist(), alone.ratio) == (subset.ids.tolist(), subset.ratio)
    with pytest.raises(InputError, match=r"ratio must be a number in \(0, 1\]; got 1\.5"):
        quantize(blobs, [0.5, 1.5], method="random")
    with pytest.raises(InputError, match=r"or several of them; got \[\]"):
        quantize(blobs, [], method="random")


def test_dq_takes_the_same_number_from_every_bin(digits):
    pool = digits.train.take(np.flatnonzero(digits.train.labels < 2))
    subset = quantize(pool, 0.5, method="dq", setting=Setting(recipe=TINY))
    bins = subset.trace["bin"]
    chosen = pool.positions(subset.ids)
    for label in (0, 1):
        members = chosen[pool.labels[chosen] == label]
        per_bin = np.bincount(bins[members], minlength=10)
        assert np.ptp(per_bin) <= 1
        assert per_bin.sum() == subset.class_counts[label]
