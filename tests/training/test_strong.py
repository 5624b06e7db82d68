"""ResNet-9, progressive resizing, and what is trained where nothing is asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import TINY

import dqas_lib.training.train as training
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.networks import make_network
from dqas_lib.training.recipes import RECIPES, Recipe, scaled
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import resized, train


def noise(side: int, n: int = 20) -> ImageSet:
    """Images of two classes, dark and bright, with noise."""
    rng, labels = np.random.default_rng(0), np.arange(n) % 2
    pixels = 80 + 90 * labels[:, None, None, None] + rng.normal(0, 20, (n, side, side, 3))
    return ImageSet(np.clip(pixels, 0, 255).astype(np.uint8), labels, np.arange(n), ("dark", "bright"), "noise", True)


@pytest.mark.parametrize(
    ("size", "parameters", "shape"), [(32, 412_954, (4, 4)), (64, 412_954, (4, 4)), (20, 412_954, (2, 2))]
)
def test_resnet9_has_its_size(size, parameters, shape):
    network = make_network("resnet9", 10, size, seed=0)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.feature_map(torch.zeros(2, size, size, 3)).shape == (2, 128, *shape)


def test_the_side_grows_when_the_recipe_says(monkeypatch):
    shown = []
    crop = training.crop

    def watched(images, picks, offsets, flips, side, pad):
        assert images.shape[1] == side
        shown.append((side, pad))
        return crop(images, picks, offsets, flips, side, pad)

    monkeypatch.setattr(training, "crop", watched)
    recipe = replace(TINY, steps=10, sides=((0.5, 0.3), (0.75, 0.6)))
    train(noise(16), setting=Setting("small_cnn", recipe))
    assert shown == [(8, 1)] * 3 + [(12, 2)] * 3 + [(16, 2)] * 4
    assert [recipe.side(step, 10, 16) for step in (0, 2, 3, 5, 6, 9)] == [8, 8, 12, 12, 16, 16]
    assert scaled(recipe, 2).sides == recipe.sides


def test_the_strong_recipe_costs_little_more_than_half_of_full_size():
    strong = RECIPES["strong"]
    pixels = sum(strong.side(step, 1600, 32) ** 2 for step in range(1600))
    assert pixels / (1600 * 32**2) == pytest.approx(0.6 * (20 / 32) ** 2 + 0.4, rel=1e-3)


def test_resizing_keeps_the_mean_and_what_has_the_side_already():
    images = noise(32).images
    small = resized(images, 20)
    assert small.shape == (20, 20, 20, 3)
    np.testing.assert_allclose(small.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=0.5)
    assert resized(images, 32) is images


def test_what_is_trained_by_default_suits_side_and_device():
    for side, expected in ((8, ("small_cnn", "cpu")), (32, ("resnet9", "strong")), (64, ("resnet9", "strong"))):
        setting = Setting().suited_to(noise(side))
        assert (setting.network, setting.recipe.name) == expected
    setting = Setting("small_cnn", "quick").suited_to(noise(32))
    assert (setting.network, setting.recipe.name) == ("small_cnn", "quick")


@pytest.mark.parametrize("sides", [((0, 0.5),), ((1.5, 0.5),), ((0.5, 0.6), (0.75, 0.6)), ((0.5, 1.2),)])
def test_sides_that_mean_nothing_are_refused(sides):
    with pytest.raises(InputError, match=r"sides are pairs .fraction of the side, until which fraction of the steps."):
        Recipe("mine", steps=10, sides=sides)


def test_a_network_that_cannot_take_the_side_is_named():
    with pytest.raises(
        InputError, match=r"'resnet9' needs images of at least 8 px, and recipe 'strong' shows it .* 5 px"
    ):
        train(noise(8), setting=Setting("resnet9", "strong"))
    with pytest.raises(
        InputError, match=r"'small_vit' takes images of one side only, and recipe 'strong' begins at 20 of"
    ):
        train(noise(32), setting=Setting("small_vit", "strong"))


def test_a_training_that_diverges_says_at_which_step():
    with pytest.raises(InputError, match=r"loss is NaN or infinite from step \d+ of 12; lower .* 'tiny', 1e\+25"):
        train(noise(8), setting=Setting("small_cnn", replace(TINY, lr=1e25)))
