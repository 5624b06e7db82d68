import json
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
    same = rows.assign(accuracy=0.5)
    assert tables.paired(same, "a", "b", over=["seed"])["p"] == 1.0


def test_summary_keeps_the_order_and_counts():
    rows = pd.DataFrame({"method": ["z", "z", "a"], "ratio": [1, 1, 1], "accuracy": [0.2, 0.4, 0.9]})
    summary = tables.summarize(rows, by=["ratio", "method"])
    assert summary["method"].tolist() == ["z", "a"]
    assert summary["n"].tolist() == [2, 1]
    np.testing.assert_allclose(summary["mean"], [0.3, 0.9])


def test_files_are_written_in_a_run_only(tmp_path, monkeypatch):
    rows = pd.DataFrame({"a": [1, 2]})
    monkeypatch.delenv("DQAS_RUN_DIR", raising=False)
    assert tables.save(rows, "t") is rows
    tables.finish({"x": 1})
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    tables.save(rows, "t")
    tables.finish({"x": 1})
    assert (tmp_path / "tables" / "t.csv").read_text() == "a\n1\n2\n"
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["finished"] is True
    assert result["values"] == {"x": 1}
    with pytest.raises(InputError, match="plain JSON values"):
        tables.finish({"x": math.nan})
