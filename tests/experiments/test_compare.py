import functools
from dataclasses import dataclass

import numpy as np
import pytest
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet
from dqas_lib.data.load import limited
from dqas_lib.data.long_tailed import imbalanced
from dqas_lib.experiments.compare import FULL, compare, workers_here
from dqas_lib.methods.dq import DQ
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.quantize import quantize
from dqas_lib.training.networks import NETWORKS, Architecture, Network
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

TINY = Recipe("tiny", steps=12, batch_size=16, lr=0.1, evaluations=2)


@pytest.fixture
def data(blobs) -> DataSet:
    rest, test = blobs.hold_out(0.3, seed=0)
    return DataSet("blobs", rest, test)


def test_one_row_a_training_with_exact_budgets_and_class_rows_that_sum_to_them(data, tmp_path):
    result = compare(
        data,
        {"random": "random", "five bins": DQ(n_bins=5), FULL: ""},
        [0.2, 0.5],
        [0, 1],
        workers=1,
        setting=Setting(recipe=TINY, store=Store(tmp_path), progress=False),
    )
    rows = result.rows
    assert len(rows) == 2 * (2 + 2 + 1)
    budgets = rows.set_index(["method", "ratio", "seed"])["budget"]
    assert budgets["random", 0.2, 0] == budgets["five bins", 0.2, 1] == round(0.2 * 42)
    assert budgets[FULL, 1.0, 0] == 42
    assert set(rows["protocol"]) == {"fixed-step"}
    sums = result.classes.groupby(["method", "ratio", "seed"])["selected"].sum()
    assert (sums.sort_index() == budgets.sort_index()).all()
    for row in rows.itertuples():
        recalls = result.classes.query("method == @row.method and ratio == @row.ratio and seed == @row.seed")["recall"]
        assert row.accuracy == pytest.approx(recalls.mean())  # the test part is balanced
        assert row.macro_accuracy == pytest.approx(recalls.mean())
        assert row.best_accuracy >= row.accuracy
    assert len(result.ids) == 8  # all images are no selection
    chosen = quantize(data.train, 0.2, method=DQ(n_bins=5), seed=1, setting=Setting(recipe=TINY))
    np.testing.assert_array_equal(result.ids[f"{data.name}-five-bins-20pct-seed1"], chosen.ids)


def test_a_second_call_reads_the_store_and_several_processes_give_the_same_rows(data, tmp_path, monkeypatch):
    def run(folder, workers):
        return compare(
            data,
            ["random"],
            [0.2],
            [0, 1],
            workers=workers,
            setting=Setting(recipe=TINY, store=Store(tmp_path / folder), progress=False),
        ).rows

    first = run("a", 1)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.npz")}

    @functools.wraps(train)
    def refuse(*arguments, **options):
        pytest.fail("trained again")

    monkeypatch.setattr("dqas_lib.experiments.evaluate.train", refuse)
    again = run("a", 1)
    monkeypatch.undo()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.npz")} == files
    assert again.equals(first)  # seconds included: nothing was computed again
    parallel = run("b", 2)
    timing = ["selection_seconds", "training_seconds"]
    assert parallel.drop(columns=timing).equals(first.drop(columns=timing))


def test_bad_values_stop_the_grid_before_anything_runs(data, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="ratio must be a number in"):
        compare(data, ["random"], [0.5, 1.5], [0], setting=Setting(recipe=TINY, store=Store(tmp_path), progress=False))
    with pytest.raises(InputError, match="unknown method 'rnadom'"):
        compare(data, ["rnadom"], [0.5], [0], setting=Setting(recipe=TINY, store=Store(tmp_path), progress=False))
    assert not list(tmp_path.rglob("*"))
    monkeypatch.setenv("DQAS_WORKERS", "many")
    with pytest.raises(InputError, match="DQAS_WORKERS must be a whole number >= 1; got 'many'"):
        workers_here("cpu")
    monkeypatch.setenv("DQAS_WORKERS", "3")
    assert workers_here("cpu") == 3


def test_paired_seeds_share_initial_weights_and_order_over_the_methods(data, monkeypatch):
    seeds = []

    @functools.wraps(train)
    def spy(images, *, seed, **options):
        seeds.append(seed)
        return train(images, seed=seed, **options)

    monkeypatch.setattr("dqas_lib.experiments.evaluate.train", spy)
    rows = compare(data, ["random", "dq"], [0.5], [0, 1], workers=1, setting=Setting(recipe=TINY)).rows
    assert np.ptp(rows["budget"]) == 0
    by_seed = rows.assign(training=seeds).groupby("seed")["training"]
    assert by_seed.nunique().tolist() == [1, 1]  # one seed decides weights and batches, whatever the method
    assert by_seed.first().nunique() == 2


@dataclass(frozen=True)
class Fixed:
    """A method from outside: the images at these positions."""

    name: str
    positions: tuple[int, ...]

    def select(self, pool, budget):
        return np.array(self.positions[:budget])


def trainings(folder):
    return set((folder / "training").glob("*.npz"))


def test_only_other_images_cost_a_new_training(data, tmp_path):
    setting = Setting(recipe=TINY, store=Store(tmp_path))
    first = compare(data, [Fixed("one", (0, 14, 28, 3))], [4 / 42], [0], workers=1, setting=setting).rows
    before = trainings(tmp_path)
    assert len(before) == 1
    # another method, with other options, that selects the same: the training is read
    other = compare(data, [Fixed("two", (0, 14, 28, 3, 7))], [4 / 42], [0], workers=1, setting=setting).rows
    assert trainings(tmp_path) == before
    assert other["training_seconds"].tolist() == first["training_seconds"].tolist()
    # the method of the same name, changed so that it selects one other image: neither selection nor training is read
    changed = compare(data, [Fixed("one", (0, 14, 28, 4))], [4 / 42], [0], workers=1, setting=setting).rows
    assert len(trainings(tmp_path)) == 2
    assert not changed.equals(first)
    assert not (tmp_path / "selection").exists()
    assert compare(data, [Fixed("one", (0, 14, 28, 3))], [4 / 42], [0], setting=setting, compute=False).rows.empty
    with pytest.raises(InputError, match="several methods are named 'one': give a mapping"):
        compare(data, [Fixed("one", (0,)), Fixed("one", (1,))], [0.1], [0])


class FewerMaps(Network):
    """A network from outside."""

    def __init__(self, n_classes: int, size: int) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), 4, n_classes)


def test_methods_and_networks_from_outside_work_in_two_processes(data, tmp_path, monkeypatch):
    monkeypatch.setattr(NETWORKS, "_items", dict(NETWORKS.items()))
    NETWORKS.register(Architecture("fewer-maps", FewerMaps, "a test"))
    options = {"methods": [Fixed("mine", (0, 14, 28, 3)), "random"], "ratios": [4 / 42], "seeds": [0]}
    setting = Setting("fewer-maps", TINY)
    two, one = (compare(data, **options, setting=setting, workers=workers) for workers in (2, 1))
    timing = ["selection_seconds", "training_seconds"]
    assert two.rows.drop(columns=timing).equals(one.rows.drop(columns=timing))
    assert two.classes.equals(one.classes)
    assert two.rows["method"].tolist() == ["mine", "random"]
    assert (
        quantize(data.train, 4 / 42, method=options["methods"][0]).ids.tolist()
        == data.train.ids[[0, 14, 28, 3]].tolist()
    )


def test_pilots_of_a_comparison_have_an_axis_for_seeds_ratios_and_classes(data):
    result = compare(data, ["random", "dq"], [0.2, 0.5], [0, 1], workers=1, setting=Setting(recipe=TINY))
    pilots = result.pilots("dq")
    assert pilots.sizes.sum(axis=1).tolist() == [round(0.2 * 42), round(0.5 * 42)]
    classes = result.classes.set_index(["method", "seed", "ratio", "class"])
    for s, r, c in np.ndindex(2, 2, 3):
        row = classes.loc[("dq", s, [0.2, 0.5][r], data.train.class_names[c])]
        assert pilots.recall[s, r, c] == row["recall"]
        assert pilots.errors[s, r, c] == row["missing"]
    assert ((pilots.errors > 0) & (pilots.errors < 1)).all()
    accuracy = result.rows.query("method == 'dq'").pivot(index="seed", columns="ratio", values="accuracy")
    assert np.array_equal(pilots.accuracy, accuracy)
    with pytest.raises(InputError, match="'herding' has not one training for every seed and ratio"):
        result.pilots("herding")


def test_first_last_and_none_at_one_stored_ratio_need_no_loop(digits, tmp_path):
    coder = AutoencoderRecipe("tiny", steps=4, batch_size=8, width=8, depth=1, decoder_depth=1)
    data = limited(digits, 12)
    setting = Setting(recipe=Recipe("tiny", steps=10, batch_size=16), store=Store(tmp_path))
    grid = {
        "patchify": ["none", "first", "last"],
        "theta": [0.25, 0.5],
        "drop": ["importance", "importance x error"],
        "ratio_kind": "stored",
        "autoencoder": coder,
        "setting": setting,
        "workers": 1,
    }
    rows = compare(data, ["random"], [0.25], [0], **grid).rows
    cells = rows.set_index(["patchify", "drop", "theta"])
    rules = [(rule, theta) for rule in grid["drop"] for theta in grid["theta"]]
    assert list(cells.index) == [("none", "-", 0.0), *[(order, *rule) for order in ("first", "last") for rule in rules]]
    assert rows["stored_ratio"].to_list() == pytest.approx([0.25] * 9, abs=0.5 / 120)
    # a quarter of the patches dropped buys a third more images, a half twice as many
    assert cells["n_images"].to_list() == [30, *[40, 60] * 4]
    assert set(rows["ratio_kind"]) == {"image", "stored"}
    again = compare(data, ["random"], [0.25], [0], **grid, compute=False).rows
    assert again.equals(rows)
    with pytest.raises(InputError, match=r"a stored ratio of 0\.6 needs more images than there are"):
        compare(data, ["random"], [0.1, 0.6], [0], **grid)
    with pytest.raises(InputError, match="patchify is one of none, first, last; got 'middle'"):
        compare(data, ["random"], [0.1], [0], patchify="middle")
    with pytest.raises(InputError, match="ratio_kind is one of image, stored; got 'bytes'"):
        compare(data, ["random"], [0.1], [0], ratio_kind="bytes")


def test_a_limited_set_keeps_the_lowest_ids_of_each_class_and_says_so(data):
    small = limited(data, 3)
    assert small.name == "blobs-3"
    for label in range(3):
        ids = small.train.ids[small.train.labels == label]
        assert ids.tolist() == sorted(data.train.ids[data.train.labels == label])[:3]
    assert limited(data, 0) is data
    with pytest.raises(InputError, match=r"per_class \(0 keeps all images\) must be a whole number >= 0"):
        limited(data, -1)


def test_an_imbalanced_version_has_the_profile_and_a_name_of_its_own(digits):
    tailed = imbalanced(digits, 10)
    assert tailed.train.class_counts.min() == round(digits.train.class_counts.max() / 10)
    assert tailed.train.class_counts.max() >= digits.train.class_counts.min()
    assert tailed.name == "digits-lt10"
    assert tailed.test is digits.test
    assert imbalanced(digits, 1) is digits
