"""DQAS as a method: exact budgets, switches, resuming, bad input, and a planted truth."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.dqas import COUNTS, DQAS, INITIALIZATIONS, SAMPLES
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TINY = Recipe("tiny", steps=12, batch_size=16, lr=0.1, weight_decay=5e-3)
FAST = DQAS(n_bins=3, rounds=2, learners=1)


def planted(seed: int, n_classes: int = 6, spread: tuple[int, ...] = (1, 4), per_class: int = 72) -> ImageSet:
    """8 x 8 images of classes with known spread: a class of `spread` has 12 patterns, the others have one each."""
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for label in range(n_classes):
        kinds = 12 if label in spread else 1
        patterns = rng.uniform(40, 215, (kinds, 8, 8, 1))
        kind = np.arange(per_class) % kinds
        images.append(patterns[kind] + rng.normal(0, 20, (per_class, 8, 8, 1)))
        labels += [label] * per_class
    pixels = np.clip(np.concatenate(images), 0, 255).astype(np.uint8)
    names = tuple(f"class {label}" for label in range(n_classes))
    return ImageSet(np.repeat(pixels, 3, axis=3), np.asarray(labels), np.arange(len(labels)), names, "planted", False)


@pytest.mark.parametrize("ratio", [1 / 60, 0.05, 0.1, 0.33, 0.5, 0.9, 0.95, 1.0])
def test_the_budget_is_exact_and_the_trace_tells_how_it_was_spent(blobs, ratio):
    subset = quantize(blobs, ratio, method=FAST, setting=Setting(recipe=TINY))
    budget = round(ratio * 60)
    counts, round_of = subset.trace["counts"], subset.trace["round"]
    assert len(subset) == len(np.unique(subset.ids)) == budget
    assert counts[-1].tolist() == subset.class_counts.tolist()
    assert (np.diff(counts, axis=0) >= 0).all()
    assert (round_of >= 0).sum() == budget
    assert np.array_equal(np.sort(np.flatnonzero(round_of >= 0)), np.sort(blobs.positions(subset.ids)))
    if ratio < 0.9:
        assert counts.shape == (3, 3)
        for number in range(3):
            upto = (round_of >= 0) & (round_of <= number)
            assert np.bincount(blobs.labels[upto], minlength=3).tolist() == counts[number].tolist()


def test_validation_images_are_selected_last(blobs):
    _, held = blobs.hold_out(FAST.validation, 3)
    for ratio, expected in ((0.5, 0), (0.9, 0), (57 / 60, 3)):
        subset = quantize(blobs, ratio, method=FAST, seed=3, setting=Setting(recipe=TINY))
        assert np.isin(subset.ids, held.ids).sum() == expected


def test_the_selection_depends_on_ids_not_on_the_order_of_the_images(blobs):
    order = np.random.default_rng(0).permutation(len(blobs))
    for method in (FAST, replace(FAST, counts="ridge", samples="gradient", diversity=0.5, initialization="curves")):
        first = quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY))
        second = quantize(blobs.take(order), 0.4, method=method, setting=Setting(recipe=TINY))
        assert first.ids.tolist() == second.ids.tolist()
        other = quantize(blobs, 0.4, method=method, seed=1, setting=Setting(recipe=TINY))
        assert set(first.ids.tolist()) != set(other.ids.tolist())


@pytest.mark.parametrize("number", range(24))
def test_every_combination_of_switches_runs(blobs, number):
    every = list(itertools.product(INITIALIZATIONS, COUNTS, SAMPLES, (False, True), (0.0, 0.5), (True, False)))
    initialization, counts, samples, shuffled, diversity, active = every[
        np.random.default_rng(0).permutation(len(every))[number]
    ]
    method = replace(
        FAST,
        initialization=initialization,
        counts=counts,
        samples=samples,
        shuffle_counts=shuffled,
        diversity=diversity,
        active=active,
        pilot_seeds=1,
        pilot_ratios=(0.2, 0.4),
        draw=("bins", "random")[number % 2],
    )
    subset = quantize(blobs, 0.35, method=method, setting=Setting(recipe=replace(TINY, steps=4)))
    assert len(np.unique(subset.ids)) == 21
    assert subset.trace["counts"].shape == (3 if active else 1, 3)
    assert subset.settings["method"]["counts"] == counts


def test_without_rounds_and_initialisation_it_is_a_uniform_draw_from_the_bins(blobs):
    subset = quantize(
        blobs, 0.3, method=replace(FAST, active=False, initialization="equal"), setting=Setting(recipe=TINY)
    )
    assert subset.class_counts.tolist() == [6, 6, 6]
    bins = subset.trace["bin"][blobs.positions(subset.ids)]
    for label in range(3):
        assert np.bincount(bins[subset.images.labels == label], minlength=3).tolist() == [2, 2, 2]


def test_shuffled_counts_go_to_other_classes():
    """One class is much harder. Shuffled, its extra images go elsewhere, and the sum stays."""
    images = planted(0, spread=(2,))
    method = DQAS(n_bins=3, rounds=1, initial=0.3, learners=1, learner_scale=1.0, shrink=0.0)
    recipe = replace(TINY, steps=60, pad=0.0)
    straight = quantize(images, 0.2, method=method, setting=Setting(recipe=recipe))
    shuffled = quantize(images, 0.2, method=replace(method, shuffle_counts=True), setting=Setting(recipe=recipe))
    assert straight.class_counts.argmax() == 2
    assert shuffled.class_counts.argmax() != 2
    assert straight.class_counts.sum() == shuffled.class_counts.sum() == 86


def test_random_samples_keep_the_counts_and_change_the_images():
    images = planted(1)
    method = DQAS(n_bins=3, rounds=1, learners=1, diversity=0.0)
    recipe = replace(TINY, steps=40)
    scored = quantize(images, 0.2, method=method, setting=Setting(recipe=recipe))
    random = quantize(images, 0.2, method=replace(method, samples="random"), setting=Setting(recipe=recipe))
    assert scored.class_counts.tolist() == random.class_counts.tolist()
    assert set(scored.ids.tolist()) != set(random.ids.tolist())
    # and the scored ones are those with the largest scores of their class
    round_of, scores = scored.trace["round"], scored.trace["scores"][0]
    for label in range(6):
        open_ = (images.labels == label) & np.isfinite(scores)
        assert scores[open_ & (round_of == 1)].min() >= scores[open_ & (round_of == -1)].max()


def test_an_unlabeled_pool_is_chosen_from_without_its_labels():
    images = planted(2)
    method = DQAS(labels="expected", counts="free", samples="ridge", rounds=1, draw="random", learners=2)
    subset = quantize(images, 0.2, method=method, setting=Setting(recipe=replace(TINY, steps=40)))
    assert len(subset) == 86
    with pytest.raises(InputError, match=r"an unlabeled pool \(labels='expected'\) has no classes to count"):
        DQAS(labels="expected", counts="error")
    with pytest.raises(InputError, match="samples other than 'true-margin'"):
        DQAS(labels="expected", counts="free", samples="true-margin")


class Stopped(Exception):
    pass


def count_trainings(monkeypatch, stop_after: int | None = None) -> list[int]:
    """Counts the trainings of every pool from now on; with `stop_after`, the next one raises Stopped."""
    sizes: list[int] = []
    train = Pool.train

    def counted(self, images, **options):
        if stop_after is not None and len(sizes) == stop_after:
            raise Stopped
        sizes.append(len(images))
        return train(self, images, **options)

    monkeypatch.setattr(Pool, "train", counted)
    return sizes


@pytest.mark.parametrize("run", [None, "my run"])
def test_a_stopped_run_goes_on_where_it_was(blobs, tmp_path, monkeypatch, run):
    method = replace(FAST, rounds=3, learners=2)
    whole = quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY))
    method = replace(method, run=run)
    with monkeypatch.context() as patch:
        count_trainings(patch, stop_after=1 + 2 * 2 + 1)  # the features, two rounds, and half of the third
        with pytest.raises(Stopped):
            quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY, store=Store(tmp_path)))
    with monkeypatch.context() as patch:
        sizes = count_trainings(patch)
        resumed = quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY, store=Store(tmp_path)))
    assert len(sizes) == 2  # the third round alone
    assert resumed.ids.tolist() == whole.ids.tolist()
    assert np.array_equal(resumed.trace["counts"], whole.trace["counts"])
    with monkeypatch.context() as patch:
        sizes = count_trainings(patch)
        quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY, store=Store(tmp_path)))
    assert sizes == []


def test_a_resumed_run_with_other_settings_is_refused_and_both_are_shown(blobs, tmp_path):
    store = Store(tmp_path)
    method = replace(FAST, run="pilot")
    first = quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY, store=store))
    with pytest.raises(InputError) as caught:
        quantize(blobs, 0.3, method=replace(method, shrink=0.25), setting=Setting(recipe=TINY, store=store))
    message = str(caught.value)
    assert "run 'pilot' was started with other settings: budget = 24, method.shrink = 0.5" in message
    assert "now budget = 18, method.shrink = 0.25" in message
    # nothing is lost: the run still goes on with its own settings
    assert (
        quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY, store=store)).ids.tolist()
        == first.ids.tolist()
    )
    # without a name, other settings are another run
    quantize(blobs, 0.3, method=replace(FAST, shrink=0.25), setting=Setting(recipe=TINY, store=store))
    with pytest.raises(InputError, match="can be kept in a store only: give store="):
        quantize(blobs, 0.4, method=method, setting=Setting(recipe=TINY))


def test_a_class_with_one_image_or_none(blobs):
    keep = np.flatnonzero((blobs.labels != 1) | (np.arange(60) == 25))
    for method in (FAST, replace(FAST, counts="ridge", samples="ridge"), replace(FAST, counts="retrain")):
        one = quantize(blobs.take(keep), 0.5, method=method, setting=Setting(recipe=TINY))
        assert len(one) == round(0.5 * 41)
        assert one.class_counts[1] <= 1
        none = quantize(blobs.take(np.flatnonzero(blobs.labels != 1)), 0.5, method=method, setting=Setting(recipe=TINY))
        assert none.class_counts[1] == 0
        assert len(none) == 20
    first_of_each = blobs.take(np.array([0, 20, 40]))
    assert len(quantize(first_of_each, 2 / 3, method=FAST, setting=Setting(recipe=TINY))) == 2
    with pytest.raises(InputError, match="estimator 'ridge' needs validation images, and every class has one"):
        quantize(first_of_each, 2 / 3, method=replace(FAST, counts="ridge", rounds=1), setting=Setting(recipe=TINY))


def test_a_budget_smaller_than_the_number_of_classes(digits):
    subset = quantize(digits.train, 5 / 1201, method=FAST, setting=Setting(recipe=TINY))
    assert len(subset) == 5
    assert subset.class_counts.max() <= 3


def test_identical_images(blobs):
    same = blobs.with_images(np.full_like(blobs.images, 77))
    for samples in ("margin", "ridge", "gradient"):
        subset = quantize(same, 0.4, method=replace(FAST, samples=samples, diversity=0.5), setting=Setting(recipe=TINY))
        assert len(np.unique(subset.ids)) == 24


def test_training_that_diverges_is_named(blobs):
    with pytest.raises(InputError, match="NaN or infinite"):
        quantize(blobs, 0.4, method=replace(FAST, draw="random"), setting=Setting(recipe=replace(TINY, lr=1e25)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": "entropy"}, "counts is one of error, free, equal, margin, ridge, gradient, retrain; got 'entropy'"),
        ({"samples": "retrain"}, "samples is one of margin, true-margin, ridge, gradient, random; got 'retrain'"),
        ({"initial": 0}, r"initial must lie in \(0, 1\]"),
        ({"shrink": 1.5}, r"shrink in \[0, 1\]"),
        ({"rounds": 0}, "rounds, learners and pilot_seeds must be at least 1"),
        ({"pilot_ratios": (0.1,)}, "pilot_ratios are at least two ratios"),
    ],
)
def test_options_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        DQAS(**changes)


def test_planted_duplicates_are_not_selected_together():
    """Every image is there three times, so that its copies stand beside it in any ranking by score alone."""
    base = planted(3, n_classes=3, spread=(0, 1, 2))
    rows = np.tile(np.arange(len(base)), 3)
    images = ImageSet(base.images[rows], base.labels[rows], np.arange(len(rows)), base.class_names, "copies", False)
    repeated = {}
    for diversity in (0.0, DQAS().diversity, 0.5):
        method = DQAS(draw="random", rounds=1, learners=1, diversity=diversity)
        subset = quantize(images, 0.15, method=method, setting=Setting(recipe=replace(TINY, steps=60)))
        later = subset.trace["round"][subset.ids] > 0  # the first share is drawn without looking
        pixels = subset.images.images.reshape(len(subset), -1)
        repeated[diversity] = later.sum() - len(np.unique(pixels[later], axis=0))
    assert repeated[0.0] > 20
    assert repeated[DQAS().diversity] == repeated[0.5] == 0


def test_planted_sensitive_classes_are_found_and_given_more():
    """Classes 1 and 4 have twelve patterns, the others one: in at least 18 of 20 seeds both get more than any other."""
    found = 0
    for seed in range(20):
        method = DQAS(draw="random", rounds=2, learners=1, learner_scale=1.0, shrink=0.25, validation=0.2)
        subset = quantize(
            planted(seed), 0.2, method=method, seed=seed, setting=Setting(recipe=replace(TINY, steps=60, pad=0.0))
        )
        counts = subset.class_counts
        found += counts[[1, 4]].min() > counts[[0, 2, 3, 5]].max()
    assert found >= 18
