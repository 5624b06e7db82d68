"""The examples of CONTRIBUTING.md run as they stand, one after another."""

import re

import numpy as np
import pytest
from places import REPOSITORY

import dqas_lib as dqas
from dqas_lib.active.estimators import ESTIMATORS

BLOCKS = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def defined(tmp_path_factory):
    """What the blocks define, run in order; afterwards the registries are as before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DQAS_DATA", str(tmp_path_factory.mktemp("data")))
        for registry in (dqas.METHODS, dqas.NETWORKS, dqas.RECIPES, dqas.DATA_SETS, ESTIMATORS):
            patch.setattr(registry, "_items", dict(registry._items))
        names = {"__name__": "contributing"}
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"CONTRIBUTING.md, block {number + 1}", "exec"), names)
        yield names


def test_each_door_takes_about_ten_lines():
    assert len(BLOCKS) == 7
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line.strip()]) <= 17


def test_the_method_selects_the_images_nearest_to_the_median_distance(defined):
    subset, train = defined["subset"], defined["data"].train
    assert len(subset) == round(0.05 * len(train))
    assert set(defined["rows"]["method"]) == {"random", "middle"}
    assert defined["rows"]["accuracy"].between(0.3, 1).all()  # ten classes: chance is 0.1


def test_the_estimator_decides_the_samples(defined):
    plain = dqas.quantize(defined["data"].train, 0.05, setting=defined["quick"])
    assert len(defined["surprised"]) == len(plain)
    assert set(defined["surprised"].ids) != set(plain.ids)


def test_the_network_learns_the_data_set_by_the_recipe(defined):
    result = defined["result"]
    assert len(defined["stripes"].train) == 30
    assert result.accuracy == 1.0
    assert result.history["step"][-1] == 20
    assert result.network.head.in_features == 16


def test_the_maker_stands_in_the_survey_under_its_kind(defined):
    rows = defined["table"].set_index("method")
    assert rows.loc["faded", "kind"] == "made"
    assert rows.loc["random", "kind"] == "selection"
    assert np.isfinite(rows["accuracy"]).all()
