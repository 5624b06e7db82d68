"""Distillation: distribution matching, representative matching, and what comes out of it."""

import numpy as np
import pytest
import torch
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import generator
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.distillation import class_means, distil, representatives, step_length
from dqas_lib.training.networks import Network, make_network
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train


@pytest.fixture(scope="module")
def few_digits(digits) -> ImageSet:
    train_set = digits.train
    return train_set.take(np.concatenate([np.flatnonzero(train_set.labels == c)[:40] for c in range(10)]))


def test_synthetic_images_are_a_set_of_their_own(few_digits):
    made = distil(few_digits, 2, steps=3, real_batch=8)
    assert made.images.images.shape == (20, 8, 8, 3)
    assert made.images.images.dtype == np.uint8
    assert made.images.class_counts.tolist() == [2] * 10
    assert len(set(made.images.ids)) == 20
    assert made.images.ids[0] == "distilled/0/00000"
    assert made.images.mirror is few_digits.mirror is False
    assert made.loss.shape == (3,)
    again = distil(few_digits, 2, steps=3, real_batch=8)
    assert np.array_equal(made.images.images, again.images.images)
    shuffled = few_digits.take(np.random.default_rng(0).permutation(400))
    assert np.array_equal(made.images.images, distil(shuffled, 2, steps=3, real_batch=8).images.images)
    assert not np.array_equal(made.images.images, distil(few_digits, 2, steps=3, real_batch=8, seed=1).images.images)


def test_matching_lowers_the_distance_of_the_means(few_digits):
    """Over fresh networks the loss is noisy; the mean of the last ten steps is well below that of the first ten."""
    for matching in ("random", "representative"):
        loss = distil(few_digits, 1, steps=80, real_batch=40, matching=matching).loss
        assert loss[-10:].mean() < 0.8 * loss[:10].mean()


def distance_of_means(real: ImageSet, made: ImageSet) -> float:
    """Mean squared distance of the class means, of all the real images, in the features of three unseen networks."""
    found = []
    for seed in (1000, 1001, 1002):
        network = make_network("small_cnn", real.n_classes, real.size, seed).eval()
        network.normalize_by(real)
        for label in range(real.n_classes):
            with torch.no_grad():
                maps = [
                    network.feature_map(torch.from_numpy(each.images[each.labels == label])) for each in (real, made)
                ]
            found.append(float((maps[0].mean(dim=0) - maps[1].mean(dim=0)).square().mean()))
    return float(np.mean(found))


def test_many_images_a_class_come_closer_to_the_means_than_they_began(digits):
    """60 of some 140 a class: steps of three gray levels, right for a few images, lead them away."""
    images, n = digits.train, 60
    rows = [np.flatnonzero(images.labels == label) for label in range(10)]
    begun = [generator(0, "distil start", c).permutation(r[np.argsort(images.ids[r])])[:n] for c, r in enumerate(rows)]
    start = distance_of_means(images, images.take(np.concatenate(begun)))
    made = distance_of_means(images, distil(images, n, steps=60, real_batch=32).images)
    far = distance_of_means(images, distil(images, n, steps=60, real_batch=32, lr=3.0).images)
    assert made < 0.85 * start
    assert far > 1.2 * start


def test_the_step_shrinks_with_the_images_a_class():
    assert [step_length(n) for n in (1, 10, 50, 100)] == [3.0, 3.0, 1.0, 0.5]


def test_distilled_images_teach_more_than_as_many_real_ones(digits):
    """One image a class, 120 steps; three seeds of real images and of training."""
    recipe = Recipe("tiny", steps=80, batch_size=10)
    made = distil(digits.train, 1, steps=120, real_batch=32).images
    ours, real = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        picks = [rng.choice(np.flatnonzero(digits.train.labels == c)) for c in range(10)]
        ours.append(train(made, seed=seed, evaluate_on=digits.test, setting=Setting(recipe=recipe)).accuracy)
        real.append(
            train(
                digits.train.take(np.array(picks)), seed=seed, evaluate_on=digits.test, setting=Setting(recipe=recipe)
            ).accuracy
        )
    assert np.mean(ours) > np.mean(real) + 0.05


def test_class_means_by_hand():
    network = Network(nn.Identity(), 3, 2)
    network.mean.zero_()
    network.std.fill_(1.0)
    batch = torch.tensor([[1.0, 2, 3], [3, 2, 1], [10, 0, 0], [20, 0, 0]]).view(4, 1, 1, 3)
    assert class_means(network, batch, 2).tolist() == [[2, 2, 2], [15, 0, 0]]


def test_representatives_are_spread_over_the_clusters(few_digits):
    """Three groups of images that hardly differ, 12, 3 and 1 of them: three representatives, one of each."""
    images = np.zeros((16, 8, 8, 3), dtype=np.uint8)
    group = np.repeat([0, 1, 2], [12, 3, 1])
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (3, 8, 8, 3))
    images[:] = np.clip(patterns[group] + rng.integers(-2, 3, images.shape), 0, 255)
    network = make_network("small_cnn", 2, 8, 0).eval()
    found = representatives(network, images, np.arange(16), 3, seed=0)
    assert sorted(group[found]) == [0, 1, 2]
    assert representatives(network, images, np.arange(5), 5, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_the_store_keeps_synthetic_images(few_digits, tmp_path):
    store = Store(tmp_path)
    first = distil(few_digits, 1, steps=2, real_batch=4, setting=Setting(store=store))
    second = distil(few_digits, 1, steps=2, real_batch=4, setting=Setting(store=store))
    assert second.seconds == first.seconds  # read, not made again
    assert np.array_equal(first.images.images, second.images.images)


def test_bad_input(few_digits):
    with pytest.raises(InputError, match="41 distilled images per class were asked for, but class '0' has 40"):
        distil(few_digits, 41)
    with pytest.raises(InputError, match="matching is one of random, representative; got 'dream'"):
        distil(few_digits, 1, matching="dream")
    with pytest.raises(InputError, match="per_class must be a whole number >= 1; got 0"):
        distil(few_digits, 0)
    with pytest.raises(InputError, match="steps must be a whole number >= 1; got 0"):
        distil(few_digits, 1, steps=0)
    for lr in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"lr (in gray levels )?must be a number"):
            distil(few_digits, 1, lr=lr)
    with pytest.raises(InputError, match="distillation needs images; got an empty set"):
        distil(few_digits.take(np.zeros(0, dtype=np.int64)), 1)
    with pytest.raises(InputError, match="unknown network 'vgg'"):
        distil(few_digits, 1, steps=1, setting=Setting(network="vgg"))


def test_classes_without_images_are_left_out(few_digits):
    part = few_digits.take(np.flatnonzero(few_digits.labels > 7))
    made = distil(part, 2, steps=2, real_batch=4).images
    assert made.class_counts.tolist() == [0] * 8 + [2, 2]
    assert set(made.ids) == {f"distilled/{c}/0000{i}" for c in (8, 9) for i in (0, 1)}
