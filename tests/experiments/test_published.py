"""Published numbers: each as it is in the list this kit was given, nothing added, and compared only where it may be."""

import re

import pandas as pd
import pytest
from places import REPOSITORY

from dqas_lib.experiments.published import ACCURACIES, COSTS, LARGEST_CLASS, accuracies, beside, costs, gaps
from dqas_lib.methods import METHODS

LIST = REPOSITORY.parent / "shared" / "method.md"


def test_values() -> None:
    assert [entry.value for entry in accuracies("cifar10", "dqas", 0.2)] == [90.2]
    assert [entry.value for entry in accuracies("cifar100", "bgfdq", 0.1)] == [55.2]
    assert [entry.value for entry in accuracies("cifar10", "random", 0.1)] == [75.7]
    assert [entry.value for entry in accuracies("cifar10", "random", 0.2)] == [87.1, 87.1]  # two sources agree
    assert [entry.value for entry in accuracies("cifar10", "bins-random", 0.3)] == [90.1]
    assert accuracies("cifar10", "dqas", 0.1) == []
    assert accuracies("digits", "dqas", 0.2) == []
    assert [(entry.value, entry.unit, entry.hardware) for entry in costs("cifar10", "dqas")] == [(32.5, "h", None)]


def test_every_number_of_the_list_and_no_other() -> None:
    """All percentages, seconds and hours of the list's section are here, and nothing here is missing there."""
    if not LIST.is_file():
        pytest.skip("the list of published numbers is not at hand: this test checked nothing")
    section = re.search(
        r"^## \d+\. Published numbers.*?(?=^## |\Z)", LIST.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )[0]
    table = {}
    for line in section.split("\n"):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = re.match(r"(CIFAR-100?), (\d+) %", cells[0])
        if found:
            key = (found[1].lower().replace("-", ""), int(found[2]) / 100)
            table[key] = [float(cell) for cell in cells[1:]]
    assert len(table) == 3
    for (dataset, ratio), values in table.items():
        ours = [
            next(entry.value for entry in accuracies(dataset, method, ratio) if entry.source.startswith("BGFDQ"))
            for method in ("random", "dq", "dqas", "adq", "bgfdq")
        ]
        assert ours == values
    prose = " ".join(line for line in section.split("\n")[1:] if not line.startswith("|")).replace(",", "")
    in_prose = set(map(float, re.findall(r"\d+(?:\.\d+)?", prose)))
    here = {entry.value for entry in (*ACCURACIES, *COSTS) if not entry.source.startswith("BGFDQ") or entry in COSTS}
    here |= {float(LARGEST_CLASS)}
    assert here <= in_prose
    settings = {10, 5, 15, 60, 20, 4070, 0.6, 64, 18, 50, 100, 200}  # of the experiments: no results
    assert in_prose - here <= settings


def test_methods_are_called_what_they_are_called_here() -> None:
    known = {*METHODS, "full"}
    assert {entry.method for entry in ACCURACIES} <= known
    assert {entry.method for entry in COSTS} <= known | {"dream", "dc"}  # distillation has no selection


def test_only_equal_protocols_are_comparable() -> None:
    (random,) = accuracies("cifar10", "random", 0.1)
    assert random.compare_with(network="resnet18", recipe="paper") == ""
    assert random.compare_with(network="resnet18", recipe="fast") == "recipe fast, not the 200 epochs of 'paper'"
    assert "network small_cnn, published resnet18" in random.compare_with(network="small_cnn", recipe="paper")
    (dqas,) = accuracies("cifar10", "dqas", 0.2)
    assert "stored ratio" in dqas.compare_with(network="resnet18", recipe="paper")
    assert dqas.compare_with(network="resnet18", recipe="paper", patches_dropped=True) == ""
    fifty = accuracies("tiny-imagenet", "full", 1.0)[0]
    assert fifty.compare_with(network="resnet18", recipe="paper") == "50 epochs there"


def test_beside() -> None:
    ours = pd.DataFrame(
        {
            "dataset": ["cifar10", "cifar10", "digits"],
            "method": ["random", "dqas", "dqas"],
            "ratio": [0.1, 0.05, 0.2],
            "network": "resnet18",
            "recipe": "paper",
            "mean": [0.7612, 0.7, 0.9],
            "half": [0.004, float("nan"), 0.01],
        }
    )
    table = beside(ours)
    assert table["ours (%)"].tolist() == ["76.1 ± 0.4", "70.0", "90.0 ± 1.0"]
    assert table["published (%)"].tolist() == ["75.7", "not published", "not published"]
    assert table["comparable"].tolist() == ["yes, epochs there not stated", "-", "-"]


def test_gaps_are_taken_within_one_source() -> None:
    ours = pd.DataFrame(
        {"dataset": ["cifar10"], "ratio": [0.2], "method": ["dqas"], "difference": [0.01], "half": [0.02]}
    )
    table = gaps(ours).set_index(["dataset", "ratio", "method", "source"])
    bgfdq = ACCURACIES[0].source
    assert table.loc[("cifar10", 0.2, "dqas", bgfdq), "gap (points)"] == pytest.approx(90.2 - 87.1)
    assert table.loc[("cifar10", 0.2, "dqas", bgfdq), "ours (points)"] == "+1.0 ± 2.0"
    assert table.loc[("cifar100", 0.1, "bgfdq", bgfdq), "ours (points)"] == "not measured"
    assert not {"random", "full"} & set(table.index.get_level_values("method"))  # "full" has no random beside it
    assert len(table) == 4 * 3 + 3
