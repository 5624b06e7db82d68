"""The survey of all methods: tidy rows, paired seeds, nothing silently left out."""

import numpy as np
import pytest

from dqas_lib.errors import InputError
from dqas_lib.images import DataSet
from dqas_lib.methods import METHODS
from dqas_lib.methods.dq import DQ
from dqas_lib.store import Store
from dqas_lib.survey import all_methods, png_bytes, survey
from dqas_lib.training import Recipe

TINY = Recipe("tiny", steps=12, batch_size=8, lr=0.05)


def test_every_registered_method_is_in_the_survey():
    assert set(METHODS) | {"full", "dq, gradients"} == set(all_methods())
    assert all_methods()["dq, gradients"] == DQ(space="gradients")


def test_rows_of_selections_and_of_other_sets(blobs, tmp_path):
    data = DataSet("blobs", blobs.take(np.arange(0, 60, 2)), blobs.take(np.arange(1, 60, 2)))
    options = {
        "methods": {"full": "full", "random": "random", "herding": "herding"},
        "others": ("dm", "jpeg", "webp"),
        "recipe": TINY,
        "store": Store(tmp_path),
        "workers": 1,
        "progress": False,
    }
    table = survey(data, 0.2, [0, 1], **options)
    kinds = table.groupby("method")["kind"].first().to_dict()
    # six 8 x 8 images of noise as PNG leave room for thirty as WebP; JPEG needs more: no row, rather than a wrong one
    expected = {"full": "all", "random": "selection", "herding": "selection", "dm": "distilled", "webp": "re-encoded"}
    assert kinds == expected
    n_images = table.groupby("method")["n_images"].first().to_dict()
    assert n_images == {"full": 30, "random": 6, "herding": 6, "dm": 6, "webp": 30}
    assert all(seeds == [0, 1] for seeds in table.groupby("method")["seed"].apply(list))
    means = table.groupby("method", sort=False)["accuracy"].mean()
    assert means.is_monotonic_decreasing
    assert table["accuracy"].between(0, 1).all()
    assert table.equals(survey(data, 0.2, [0, 1], **options))  # from the store, times included
    with pytest.raises(InputError, match="unknown: gif; beside the methods there are dm, dream, jpeg and webp"):
        survey(data, 0.2, [0], others=("gif",))


def test_png_bytes_count_grey_images_as_grey(digits, blobs):
    assert png_bytes(blobs.take(np.arange(2))) > 2 * 8 * 8 * 2  # noise in three channels hardly shrinks
    assert png_bytes(digits.train.take(np.arange(10))) < 10 * (8 * 8 + 70)  # 64 grey levels and a PNG's header
