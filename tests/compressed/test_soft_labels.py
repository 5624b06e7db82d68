"""Soft labels: what a teacher says, kept in a set, counted in its bytes, learned in place of the labels."""

from dataclasses import replace

import numpy as np
import pytest

from dqas_lib.compressed.read import open_compressed
from dqas_lib.compressed.soft_labels import soften
from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.probabilities import softmax
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

TINY = Recipe("tiny", steps=12, batch_size=8, lr=0.05)


def labeled(n_classes, n=40):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % n_classes
    soft = soften(3 * rng.standard_normal((n, n_classes)))
    return ImageSet(pixels, labels, np.arange(n), tuple(map(str, range(n_classes))), soft_labels=soft)


@pytest.mark.parametrize(("n_classes", "each"), [(3, 3), (10, 10), (30, 5 + 5)])
def test_they_come_back_and_are_counted(tmp_path, n_classes, each):
    images = labeled(n_classes)
    opened = open_compressed(save_compressed(tmp_path / "soft", images))
    assert np.array_equal(opened.images.soft_labels, images.soft_labels)
    assert opened.reproduced
    assert np.array_equal(opened.images.take(np.array([3, 1])).soft_labels, images.soft_labels[[3, 1]])
    hard = open_compressed(save_compressed(tmp_path / "hard", replace(images, soft_labels=None)))
    assert hard.images.soft_labels is None
    headers = 128 * (1 + (n_classes == 30))
    in_manifest = opened.sizes["manifest.json"] - hard.sizes["manifest.json"]
    assert opened.total_bytes - hard.total_bytes == len(images) * each + headers + in_manifest


def test_of_many_classes_the_largest_five_are_kept():
    logits = np.random.default_rng(1).standard_normal((20, 200))
    soft, shares = soften(logits), softmax(logits)
    assert ((soft > 0).sum(axis=1) <= 5).all()
    assert (soft.argmax(axis=1) == shares.argmax(axis=1)).all()
    assert soften(np.zeros((4, 1000))).any(axis=1).all()  # even where no probability is a 255th


def test_quantize_keeps_what_the_teacher_says(digits, tmp_path):
    images = digits.train.take(np.arange(300))
    setting = Setting(recipe=TINY, store=Store(tmp_path))
    chosen = quantize(images, 0.2, method="random", seed=1, setting=setting, soft_labels=True)
    logits = Pool(images, seed=1, setting=setting).logits
    assert np.array_equal(chosen.images.soft_labels, soften(logits[images.positions(chosen.ids)]))
    plain = quantize(images, 0.2, method="random", seed=1, setting=setting)
    assert np.array_equal(chosen.ids, plain.ids)
    assert plain.images.soft_labels is None
    assert 0 < chosen.total_bytes - plain.total_bytes - 60 * 10 < 500
    within = quantize(images, bytes=4_000, method="random", setting=setting, soft_labels=True, n_images=60)
    assert within.images.soft_labels is not None
    assert 0.98 * 4_000 < within.total_bytes <= 4_000


def test_training_learns_them_in_place_of_the_labels():
    images = replace(labeled(3), soft_labels=None)
    sure = replace(images, soft_labels=(255 * np.eye(3)[images.labels]).astype(np.uint8))
    results = [train(each, setting=Setting(recipe=TINY), evaluate_on=images) for each in (images, sure)]
    assert np.allclose(results[0].logits, results[1].logits, atol=1e-3)  # certain labels are the labels
    turned = replace(images, soft_labels=(255 * np.eye(3)[(images.labels + 1) % 3]).astype(np.uint8))
    other = train(turned, setting=Setting(recipe=TINY), evaluate_on=images)
    assert not np.allclose(results[0].logits, other.logits, atol=0.1)


def test_bad_input():
    images = labeled(3)
    with pytest.raises(InputError, match=r"soft_labels must be \(40, 3\) uint8; got \(40, 2\)"):
        replace(images, soft_labels=images.soft_labels[:, :2])
    with pytest.raises(InputError, match="soft_labels of an image are all 0: 40 of 40 images"):
        replace(images, soft_labels=np.zeros((40, 3), np.uint8))
