"""The survey of all methods: tidy rows, paired seeds, nothing silently left out."""

import numpy as np
import pandas as pd
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.distillation import distilled
from dqas_lib.experiments.survey import all_methods, overview, png_bytes, survey
from dqas_lib.methods import METHODS
from dqas_lib.methods.dq import DQ
from dqas_lib.training.recipes import Recipe

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
    assert png_bytes(digits.train.take(np.arange(10))) < 10 * (8 * 8 + 70)  # 64 gray levels and a PNG's header


def test_overview_pairs_every_method_with_random_over_its_own_seeds():
    def rows(method, kind, accuracy):
        return [
            {"method": method, "kind": kind, "n_images": 10, "seed": s, "accuracy": a, "selection_seconds": 1.0 + s}
            for s, a in enumerate(accuracy)
            if a is not None
        ]

    table = pd.DataFrame(
        rows("dqas", "selection", [0.8, 0.9])
        + rows("random", "selection", [0.7, 0.9])
        + rows("webp", "re-encoded", [None, 0.6])
    )
    found = overview(table).set_index("method")
    assert list(found.index) == ["dqas", "random", "webp"]  # the order of the rows
    assert list(found["kind"]) == ["selection", "selection", "re-encoded"]
    assert list(found["n"]) == [2, 2, 1]
    assert found["accuracy"].to_list() == pytest.approx([0.85, 0.8, 0.6])
    # Student's t of one degree of freedom: 12.706 times the standard error
    assert found.loc["dqas", ["difference", "difference_half"]].to_list() == pytest.approx(
        [0.05, 12.706 * 0.05], rel=1e-4
    )
    assert found.loc["dqas", "half"] == pytest.approx(12.706 * 0.05, rel=1e-4)
    assert found.loc["random", ["difference", "difference_half"]].isna().all()
    assert found.loc["webp", "difference"] == pytest.approx(-0.3)  # to random of the same seed, not to the mean
    assert found.loc["webp", ["half", "difference_half"]].isna().all()
    assert list(found["selection_seconds"]) == [1.5, 1.5, 2.0]
    to_dqas = overview(table, "dqas").set_index("method")["difference"]
    assert to_dqas["random"] == pytest.approx(-0.05)
    with pytest.raises(InputError, match="no complete pairs of 'dqas' and 'herding'"):
        overview(table, "herding")


def test_imbalanced_data_are_ranked_by_macro_accuracy_and_leave_out_what_a_class_cannot_give(blobs, tmp_path):
    few = np.concatenate([np.flatnonzero(blobs.labels == label)[: 3 if label else 20] for label in range(3)])
    data = DataSet("tailed", blobs.take(few), blobs.take(np.arange(1, 60, 2)))  # 26 images, the smallest classes have 3
    options = {"methods": {"random": "random", "herding": "herding"}, "recipe": TINY, "workers": 1, "progress": False}
    table = survey(data, 0.5, [0], others=("dm",), measure="macro_accuracy", **options)
    assert set(table["method"]) == {"random", "herding"}  # dm wants 13 // 3 = 4 images of a class of 3
    assert table["macro_accuracy"].is_monotonic_decreasing
    found = overview(table, measure="macro_accuracy").set_index("method")
    assert found["macro_accuracy"].to_dict() == table.set_index("method")["macro_accuracy"].to_dict()
    assert "accuracy" not in found
    with pytest.raises(InputError, match="measure is one of accuracy, macro_accuracy; got 'recall'"):
        survey(data, 0.5, [0], measure="recall", **options)
    with pytest.raises(InputError, match="measure is one of accuracy, macro_accuracy; got 'recall'"):
        overview(table, measure="recall")


def test_distilled_images_number_what_the_ratio_gives(blobs):
    counts = blobs.class_counts
    found = distilled(blobs, 0.2, "dm", steps=2)
    assert list(found.images.class_counts) == [round(0.2 * len(blobs)) // len(counts)] * len(counts)
    assert found.settings["matching"] == "random"
    assert found.settings["steps"] == len(found.loss) == 2
    assert distilled(blobs, 0.02, "dream", steps=1).settings["matching"] == "representative"
    assert list(distilled(blobs, 0.02, "dm", steps=1).images.class_counts) == [1] * len(counts)
    with pytest.raises(InputError, match="unknown distillation 'DC': the known ones are dm, dream"):
        distilled(blobs, 0.2, "DC")
