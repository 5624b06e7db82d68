import numpy as np
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet
from dqas_lib.data.load import limited
from dqas_lib.data.long_tailed import imbalanced
from dqas_lib.experiments.compare import FULL, compare, workers_here
from dqas_lib.methods.dq import DQ
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

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


def test_a_second_call_reads_the_store_and_several_processes_give_the_same_rows(data, tmp_path):
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
    again = run("a", 1)
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


def test_paired_seeds_share_the_initial_network(data, tmp_path):
    # at ratio 1 every method selects the same images, in whatever order: with the same seed only the order differs
    rows = compare(
        data, ["random", "dq"], [1.0], [0], workers=1, setting=Setting(recipe=TINY, store=None, progress=False)
    ).rows
    assert np.ptp(rows["budget"]) == 0


def test_a_limited_set_keeps_the_lowest_ids_of_each_class_and_says_so(data):
    small = limited(data, 3)
    assert small.name == "blobs-3"
    for label in range(3):
        ids = small.train.ids[small.train.labels == label]
        assert ids.tolist() == sorted(data.train.ids[data.train.labels == label])[:3]
    assert limited(data, 0) is data
    with pytest.raises(InputError, match="per_class must be >= 0"):
        limited(data, -1)


def test_an_imbalanced_version_has_the_profile_and_a_name_of_its_own(digits):
    tailed = imbalanced(digits, 10)
    assert tailed.train.class_counts.min() == round(digits.train.class_counts.max() / 10)
    assert tailed.train.class_counts.max() >= digits.train.class_counts.min()
    assert tailed.name == "digits-lt10"
    assert tailed.test is digits.test
    assert imbalanced(digits, 1) is digits
