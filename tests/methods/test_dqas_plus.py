"""DQAS-plus: what the window leaves out, what picks inside it, and one training for all ratios."""

from dataclasses import replace

import numpy as np
import pytest
from planted import TINY
from toys import random_pool, toy_images

import dqas_lib.training.dynamics
from dqas_lib.core.errors import InputError
from dqas_lib.methods.dqas_plus import DQASPlus, window
from dqas_lib.methods.geometry import Herding
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.setting import Setting

LABELS = np.repeat([0, 1], [40, 20])


def pool_of(margin: np.ndarray) -> Pool:
    """A pool whose images have these margins at both of two checkpoints."""
    given = random_pool(LABELS, n_classes=2).given
    names = ("correct", "margin", "el2n", "grand")
    return Pool(toy_images(LABELS), given={**given, **{name: np.stack([margin, margin]) for name in names}})


def test_the_window_leaves_out_both_ends_of_every_class():
    """Margins equal to the positions: the first of a class are the hardest, the last the easiest."""
    margin = np.arange(60.0)
    choice = DQASPlus(easy=0.25, hard=0.1, inside=None).select(pool_of(margin), 6)
    expected = np.zeros(60, dtype=bool)
    expected[4:30] = expected[42:55] = True  # of 40: 4 hard and 10 easy; of 20: 2 and 5
    assert choice.trace["window"].tolist() == expected.tolist()
    assert choice.trace["score"].tolist() == margin.tolist()
    assert expected[choice.positions].all()
    assert np.bincount(LABELS[choice.positions]).tolist() == [4, 2]
    swapped = DQASPlus(easy=0.25, hard=0.1, inside=None).select(pool_of(-margin), 6)
    assert swapped.trace["window"].tolist() == np.concatenate([expected[39::-1], expected[:39:-1]]).tolist()


def test_herding_picks_inside_the_window_only():
    pool = pool_of(np.arange(60.0))
    choice = DQASPlus(easy=0.25, hard=0.1, inside=Herding()).select(pool, 9)
    inside = np.flatnonzero(choice.trace["window"])
    assert np.isin(choice.positions, inside).all()
    first = inside[inside < 40]
    assert choice.positions[:6].tolist() == first[Herding().pick(pool, first, 6)].tolist()


def test_the_window_slides_with_the_ratio_and_always_leaves_the_budget():
    margins = np.linspace(-1, 3, 100)  # a quarter of the class was not learned
    hard = [window(margins, ratio)[1] for ratio in (0.01, 0.05, 0.1, 0.2, 0.5)]
    assert hard == sorted(hard, reverse=True)
    assert hard[:4] == pytest.approx([0.75 * 0.25, 0.6 * 0.25, 0.3 * 0.25, 0.15 * 0.25])
    assert window(margins, 0.1)[0] == pytest.approx(0.75 / 2)
    assert window(margins + 2, 0.1) == (0.5, 0.0)  # all was learned
    for ratio in np.linspace(0.01, 1, 100):
        easy, hard_end = window(margins, ratio)
        assert min(easy, hard_end) >= 0
        assert easy + hard_end <= 1 - ratio + 1e-12
    for budget in range(1, 61):
        assert len(set(DQASPlus().select(pool_of(np.arange(60.0)), budget).positions)) == budget


def test_a_window_too_narrow_is_refused_with_its_numbers():
    with pytest.raises(InputError, match="easiest 60% and the hardest 30%, class 'class 0' has 4 images, and 8 are"):
        DQASPlus(easy=0.6, hard=0.3).select(pool_of(np.arange(60.0)), 12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"easy": 1}, r"easy must be a number in \[0, 1\); got 1"),
        ({"hard": -0.1}, r"hard must be a number in \[0, 1\); got -0.1"),
        ({"inside": "herding"}, r"inside is a method such as Herding\(\), or None; got 'herding'"),
        ({"inside": Herding}, r"inside is a method such as Herding\(\)"),
        ({"checkpoints": 0}, "checkpoints must be a whole number >= 1; got 0"),
        ({"scale": 0}, "scale must be a number above 0; got 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        DQASPlus(**changes)


def test_several_ratios_cost_one_short_training_at_the_small_side(blobs, monkeypatch):
    recipes = []
    train = dqas_lib.training.dynamics.train

    def counted(images, *, setting, **options):
        recipes.append(setting.recipe)
        return train(images, setting=setting, **options)

    monkeypatch.setattr(dqas_lib.training.dynamics, "train", counted)
    recipe = replace(TINY, sides=((0.5, 0.6),))
    several = quantize(blobs, [0.1, 0.2, 0.4], method="dqas-plus", setting=Setting(recipe=recipe))
    assert [len(subset) for subset in several] == [6, 12, 24]
    assert len(recipes) == 1
    assert recipes[0].steps == round(0.5 * TINY.steps)
    assert recipes[0].sides == ((0.5, 1.0),)
