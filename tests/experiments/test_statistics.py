import math

import numpy as np
import pandas as pd
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.experiments import statistics as tables


def test_interval_of_a_mean_by_hand():
    # values 1, 2, 3: mean 2, deviation 1, t(0.975, 2 degrees) = 4.302653: half = 4.302653 / sqrt(3)
    mean, half = tables.mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(tables.mean_interval([5.0])[1])
    assert math.isnan(tables.mean_interval([5.0, 6.0])[1])  # two runs do not tell how runs vary
    with pytest.raises(InputError, match="at least one value"):
        tables.mean_interval([])


def test_paired_comparison_by_hand_and_refusal_of_missing_pairs():
    rows = pd.DataFrame(
        {
            "method": ["a"] * 3 + ["b"] * 3,
            "seed": [0, 1, 2] * 2,
            "accuracy": [0.5, 0.6, 0.9, 0.4, 0.4, 0.6],
        }
    )
    result = tables.paired(rows, "a", "b", over=["seed"])
    assert result["n"] == 3
    assert result["difference"] == pytest.approx(0.2)
    assert result["half"] == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    # t = 0.2 / (0.1 / sqrt 3) = 3.4641 with 2 degrees of freedom
    assert result["p"] == pytest.approx(0.0742, abs=2e-4)
    with pytest.raises(InputError, match="no complete pairs of 'a' and 'c'"):
        tables.paired(rows, "a", "c", over=["seed"])
    with pytest.raises(InputError, match="no complete pairs"):
        tables.paired(rows.iloc[:-1], "a", "b", over=["seed"])
    # deviations -1/6, -1/15, 7/30 and -1/15, -1/15, 2/15: 0.0467 / sqrt(0.0867 * 0.0267)
    assert result["correlation"] == pytest.approx(0.9707, abs=1e-4)
    same = rows.assign(accuracy=0.5)
    assert tables.paired(same, "a", "b", over=["seed"])["p"] == 1.0
    assert math.isnan(tables.paired(same, "a", "b", over=["seed"])["correlation"])
    two = tables.paired(rows[rows["seed"] < 2], "a", "b", over=["seed"])
    assert two["difference"] == pytest.approx(0.15)
    assert all(math.isnan(two[name]) for name in ("half", "p", "correlation"))


def test_holm_by_hand():
    # smallest first: 4 x 0.01, 3 x 0.02, 2 x 0.03 and, never below the one before, 1 x 0.04; NaN does not count
    corrected = tables.holm([0.04, 0.01, math.nan, 0.03, 0.02])
    np.testing.assert_allclose(corrected, [0.06, 0.04, math.nan, 0.06, 0.06])
    assert tables.holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert tables.holm([]).tolist() == []


def test_error_of_the_test_sample():
    # 90 % of 100 images: 1.96 sqrt(0.9 x 0.1 / 100)
    assert tables.sample_error(0.9, 100) == pytest.approx(1.96 * 0.03, rel=1e-4)


def test_summary_keeps_the_order_and_counts():
    rows = pd.DataFrame({"method": ["z", "z", "a"], "ratio": [1, 1, 1], "accuracy": [0.2, 0.4, 0.9]})
    summary = tables.summarize(rows, by=["ratio", "method"])
    assert summary["method"].tolist() == ["z", "a"]
    assert summary["n"].tolist() == [2, 1]
    np.testing.assert_allclose(summary["mean"], [0.3, 0.9])


def test_rank_correlation_by_hand():
    # ranks 1 2 3 4 and 1 3 2 4: 1 - 6 * 2 / (4 * 15)
    result = tables.rank_correlation([1.0, 2.0, 30.0, 31.0], [0.1, 0.3, 0.2, 0.9])
    assert result["correlation"] == pytest.approx(0.8)
    assert result["low"] < 0.8 < result["high"] == pytest.approx(1.0)
    assert tables.rank_correlation(np.arange(60), np.arange(60) ** 3)["low"] == pytest.approx(1.0)
    noise = np.random.default_rng(1).normal(size=(2, 200))
    assert tables.rank_correlation(*noise)["low"] < 0 < tables.rank_correlation(*noise)["high"]
    assert all(math.isnan(value) for value in tables.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).values())


def test_table_of_differences_and_its_sentences():
    seeds, a, b = [0, 1, 2], [0.90, 0.92, 0.91], [0.80, 0.81, 0.81]
    rows = pd.concat(
        pd.DataFrame({"ratio": ratio, "method": name, "seed": seeds, "accuracy": values})
        for ratio in (0.1, 0.2)
        for name, values in {"a": a, "b": b if ratio == 0.1 else [0.91, 0.91, 0.91], "c": a}.items()
    )
    table = tables.differences(rows, "a", ["b", "c", "a"])  # not with itself
    assert table[["ratio", "first", "second"]].to_numpy().tolist() == [
        [ratio, "a", other] for ratio in (0.1, 0.2) for other in ("b", "c")
    ]
    one = tables.paired(rows[rows["ratio"] == 0.1], "a", "b", over=["seed"])
    assert table.loc[0, list(one)].astype(float).to_dict() == pytest.approx(one, nan_ok=True)
    np.testing.assert_allclose(table["p_holm"], tables.holm(table["p"]))
    words = tables.in_words(table, ["b at 10 %", "c", "b at 20 %", "c too"])
    assert words.startswith("The differences run from +0.0 ± 0.0 points (c")
    assert "Corrected by Holm at 5 % (comparisons: 4), above zero: b at 10 %; below zero: none; open: 3." in words
    assert "+1.00: at +1 pairing removes all the luck of a training" in words
    assert "below zero: it" in tables.in_words(table.iloc[:1].assign(difference=-0.1), ["it"])
    assert tables.in_words(table.iloc[:1], ["it"]).startswith("The difference is +10.3 ± 1.4 points (it).")
    few = tables.in_words(tables.differences(rows[rows["seed"] < 2], "a", "b"), ["x", "y"])
    assert "a first look, not a result" in few
    assert "nan" not in few
    with pytest.raises(InputError, match="no complete pairs of 'a' and 'd'"):
        tables.differences(rows, "a", "d")
    with pytest.raises(InputError, match="a column of the rows"):
        tables.differences(rows, "a", "b", by=["size"])
