"""The survey of all methods: tidy rows, paired seeds, nothing silently left out."""

import numpy as np
import pandas as pd
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.compare import compare
from dqas_lib.experiments.makers import MAKERS, Distillation, Reencoding
from dqas_lib.experiments.survey import all_methods, overview, survey
from dqas_lib.methods import METHODS
from dqas_lib.methods.dq import DQ
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TINY = Recipe("tiny", steps=12, batch_size=8, lr=0.05)


def test_every_registered_method_is_in_the_survey():
    assert set(METHODS) | {"full", "dq, gradients"} == set(all_methods())
    assert all_methods()["dq, gradients"] == DQ(space="gradients")


def test_rows_of_selections_and_of_other_sets(blobs, tmp_path):
    data = DataSet("blobs", blobs.take(np.arange(0, 60, 2)), blobs.take(np.arange(1, 60, 2)))
    options = {
        "methods": {"full": "full", "random": "random", "herding": "herding"},
        "others": ("dm", "jpeg", "webp"),
        "setting": Setting(recipe=TINY, store=Store(tmp_path)),
        "workers": 1,
    }
    table = survey(data, 0.2, [0, 1], **options)
    kinds = table.groupby("method")["kind"].first().to_dict()
    expected = {"full": "all", "random": "selection", "herding": "selection", "dm": "distilled"}
    expected |= {"jpeg": "re-encoded", "webp": "re-encoded"}
    assert kinds == expected
    n_images = table.groupby("method")["n_images"].first().to_dict()
    assert n_images == {"full": 30, "random": 6, "herding": 6, "dm": 6, "jpeg": 30, "webp": 30}
    assert all(seeds == [0, 1] for seeds in table.groupby("method")["seed"].apply(list))
    means = table.groupby("method", sort=False)["accuracy"].mean()
    assert means.is_monotonic_decreasing
    assert table["accuracy"].between(0, 1).all()
    assert table.equals(survey(data, 0.2, [0, 1], **options))  # from the store, times included
    with pytest.raises(
        InputError, match=r"unknown method 'gif'.*: the known ones are .*random.*, dm, dream, jpeg, webp"
    ):
        survey(data, 0.2, [0], others=("gif",))


def test_overview_pairs_every_method_with_random_over_its_own_seeds():
    def rows(method, kind, accuracy):
        return [
            {"method": method, "kind": kind, "n_images": 10, "seed": s, "accuracy": a, "selection_seconds": 1.0 + s}
            for s, a in enumerate(accuracy)
            if a is not None
        ]

    table = pd.DataFrame(
        rows("dqas", "selection", [0.8, 0.9, 1.0])
        + rows("random", "selection", [0.7, 0.9, 0.8])
        + rows("webp", "re-encoded", [None, 0.6, 0.6])
    )
    found = overview(table).set_index("method")
    assert list(found.index) == ["dqas", "random", "webp"]  # the order of the rows
    assert list(found["kind"]) == ["selection", "selection", "re-encoded"]
    assert list(found["n"]) == [3, 3, 2]
    assert found["accuracy"].to_list() == pytest.approx([0.9, 0.8, 0.6])
    # Student's t of two degrees of freedom: 4.3027 times the standard error
    error = 4.3027 * 0.1 / np.sqrt(3)
    assert found.loc["dqas", ["difference", "difference_half"]].to_list() == pytest.approx([0.1, error], rel=1e-4)
    assert found.loc["dqas", "half"] == pytest.approx(error, rel=1e-4)
    # t = 0.1 / (0.1 / sqrt 3) with two degrees of freedom; one comparison that has a p: Holm changes nothing
    assert found.loc["dqas", ["p", "p_holm"]].to_list() == pytest.approx([0.2254, 0.2254], abs=1e-4)
    assert found.loc["dqas", "correlation"] == pytest.approx(0.5)
    assert found.loc["random", ["difference", "difference_half", "p", "p_holm", "correlation"]].isna().all()
    assert found.loc["webp", "difference"] == pytest.approx(-0.25)  # to random of the same seeds, not to the mean
    assert found.loc["webp", ["half", "difference_half", "p", "p_holm"]].isna().all()  # two seeds
    assert list(found["selection_seconds"]) == [2.0, 2.0, 2.5]
    to_dqas = overview(table, "dqas").set_index("method")["difference"]
    assert to_dqas["random"] == pytest.approx(-0.1)
    with pytest.raises(InputError, match="the reference is one of dqas, random, webp; got 'herding'"):
        overview(table, "herding")


def test_imbalanced_data_are_ranked_by_macro_accuracy_and_leave_out_what_a_class_cannot_give(blobs, tmp_path):
    few = np.concatenate([np.flatnonzero(blobs.labels == label)[: 3 if label else 20] for label in range(3)])
    data = DataSet("tailed", blobs.take(few), blobs.take(np.arange(1, 60, 2)))  # 26 images, the smallest classes have 3
    options = {"methods": {"random": "random", "herding": "herding"}, "setting": Setting(recipe=TINY), "workers": 1}
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
    made = Distillation("dm", "random", steps=2).make(blobs, 0.2, 0, Setting())
    assert list(made.class_counts) == [round(0.2 * len(blobs)) // len(counts)] * len(counts)
    few = Distillation("dream", "representative", steps=1).make(blobs, 0.02, 0, Setting())
    assert list(few.class_counts) == [1] * len(counts)
    assert (MAKERS["dm"].matching, MAKERS["dm"].steps, MAKERS["dream"].matching) == ("random", 300, "representative")
    with pytest.raises(InputError, match="matching is one of random, representative; got 'dc'"):
        Distillation("dc", "dc")
    with pytest.raises(InputError, match=r"codec.*'gif'"):
        Reencoding("gif", "gif")


def test_a_re_encoding_takes_the_bytes_of_a_selection_and_no_more(cifar10):
    images = cifar10.train.take(np.arange(0, 5000, 10))
    within = quantize(images, 0.2, method="random", seed=3).total_bytes
    made = MAKERS["webp"].make(images, 0.2, 3, Setting())
    assert sorted(made.ids) == sorted(images.ids)
    ours = images.select(made.ids)
    assert np.abs(made.images.astype(int) - ours.images).mean() > 1  # lossy
    again = quantize(images, bytes=within, method="random", seed=3, codec="webp", n_images=500)
    assert np.array_equal(again.images.images, made.images)
    assert 0.97 * within < again.total_bytes <= within
    assert MAKERS["jpeg"].make(images, 0.01, 3, Setting()) is None


class Averages:
    """One image per class, the mean of its images: a maker from outside, which counts its calls."""

    name, kind = "averages", "averaged"
    calls = 0

    def make(self, images, ratio, seed, setting):
        type(self).calls += 1
        if ratio < 0.1:
            return None
        first = images.take(np.array([np.flatnonzero(images.labels == label)[0] for label in range(images.n_classes)]))
        means = [images.images[images.labels == label].mean(axis=0) for label in range(images.n_classes)]
        return first.with_images(np.stack(means).astype(np.uint8))


def test_a_maker_from_outside_stands_beside_the_others_under_its_own_kind(blobs, tmp_path):
    data = DataSet("blobs", blobs.take(np.arange(0, 60, 2)), blobs.take(np.arange(1, 60, 2)))
    setting = Setting(recipe=TINY, store=Store(tmp_path))
    table = survey(data, 0.2, [0, 1], methods=["random"], others=[Averages()], setting=setting, workers=1)
    found = overview(table).set_index("method")
    assert found["kind"].to_dict() == {"random": "selection", "averages": "averaged"}
    assert found["n_images"].to_dict() == {"random": 6, "averages": 3}
    result = compare(data, [Averages()], [0.05, 0.2], [0], setting=setting, workers=1)
    assert list(result.rows["ratio"]) == [0.2]  # nothing can be made at 5 %: no row
    assert list(result.classes["selected"]) == [1, 1, 1]
    # its code may have changed: what it makes is not read from the store, and makes no rows without computing
    calls = Averages.calls
    compare(data, [Averages()], [0.2], [0], setting=setting, workers=1)
    assert Averages.calls == calls + 1
    assert compare(data, [Averages()], [0.2], [0], setting=setting, compute=False).rows.empty
    with pytest.raises(InputError, match="lacks a name or a kind"):
        compare(data, [type("NoKind", (), {"name": "x", "make": print})()], [0.2], [0])


def test_a_registered_maker_is_in_the_survey(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(MAKERS, "_items", {})
    assert MAKERS.register(Averages) is Averages  # so that it can decorate a class
    data = DataSet("blobs", blobs.take(np.arange(0, 60, 2)), blobs.take(np.arange(1, 60, 2)))
    table = survey(data, 0.2, [0], methods=["random"], setting=Setting(recipe=TINY), workers=1)
    assert set(table["method"]) == {"random", "averages"}


def test_what_the_librarys_makers_make_is_made_once(blobs, tmp_path, monkeypatch):
    data = DataSet("blobs", blobs.take(np.arange(0, 60, 2)), blobs.take(np.arange(1, 60, 2)))
    options = {"setting": Setting(recipe=TINY, store=Store(tmp_path)), "workers": 1}
    first = compare(data, ["jpeg", "webp"], [0.2], [0, 1], **options).rows
    monkeypatch.setattr("dqas_lib.experiments.makers.quantize", None)  # nor is it found out again what does not fit
    again = compare(data, ["jpeg", "webp"], [0.2], [0, 1], **options).rows
    assert set(again["method"]) == {"jpeg", "webp"}
    assert again.equals(first)
