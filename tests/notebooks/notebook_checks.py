"""The numbers of every notebook against something independent of it: a plain computation, or the tables it saved."""

import hashlib
import io
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from in_process import Run
from PIL import Image
from scipy import optimize, stats

import dqas_lib as dqas
from dqas_lib.core.seeds import derive
from dqas_lib.methods import DQAS
from dqas_lib.patches.patchify import Patchify
from dqas_lib.pool import Pool


def plain_accuracy(run: Run, images: dqas.ImageSet, test: dqas.ImageSet, seed: int) -> float:
    """Accuracy after a training that no store knows, counted image by image."""
    setting = run.names["setting"].replace(store=None, progress=False)
    logits = dqas.train(images, setting=setting, seed=derive(seed, "evaluation"), evaluate_on=test).logits
    return float(np.mean(logits.argmax(axis=1) == test.labels))


def plain_pairs(rows: pd.DataFrame, first: str, second: str, by: str = "method") -> tuple[float, float]:
    """Mean difference over seeds, and half of its 95 % interval by SciPy (three seeds or more)."""
    values = {name: rows[rows[by] == name].sort_values("seed")["accuracy"].to_numpy() for name in (first, second)}
    difference = values[first] - values[second]
    low, high = stats.t.interval(0.95, len(difference) - 1, difference.mean(), stats.sem(difference))
    return float(difference.mean()), float(high - low) / 2


def check_00(run: Run) -> None:
    values, data, subset = run.values, run.names["data"], run.names["subset"]
    assert values["budget"] == sum(values["class_counts"]) == 120
    labels = {int(i): int(label) for i, label in zip(data.train.ids, data.train.labels, strict=True)}
    assert values["class_counts"] == np.bincount([labels[int(i)] for i in subset.ids], minlength=10).tolist()
    assert values["accuracy"]["dqas"] == pytest.approx(plain_accuracy(run, subset.images, data.test, 0), abs=1e-6)
    method, plan = DQAS(), Patchify()  # what the text says of the settings
    rounds = method.rounds
    assert (plan.theta, method.bins, method.initial_ratio) == (0.25, 10, 0.0125)
    assert (rounds.growth, rounds.learners, rounds.learner_scale) == (2.0, 1, 0.25)
    assert run.names["check"](lambda labels, budget, rng: np.arange(budget)).startswith("class counts")
    assert values["accuracy"]["all images"] > 0.93 > 0.85 < values["accuracy"]["dqas"]


def check_01(run: Run) -> None:
    values, rows = run.values, run.table("01_class_pilots")
    assert set(values["sensitivity"]) == {"random", "dm"}
    for method, slopes in values["sensitivity"].items():
        part = rows[rows["method"] == method]
        sizes = part.pivot_table(index="ratio", columns="class", values="selected").to_numpy()
        errors = part.pivot_table(index="ratio", columns="class", values="missing").to_numpy()
        fits = []
        for b in run.names["EXPONENTS"]:  # non-negative least squares in the place of the closed form
            lines = [
                optimize.nnls(np.stack([n**-b, np.ones(len(n))], 1), e) for n, e in zip(sizes.T, errors.T, strict=True)
            ]
            fits.append((sum(residual**2 for _, residual in lines), b, np.array([line[0] for line, _ in lines])))
        _, b, a = min(fits, key=lambda fit: fit[0])
        assert slopes == pytest.approx(a * b * run.names["target"] ** -b, abs=2e-5)
    one, two = (np.array(values["sensitivity"][method]) for method in ("random", "dm"))
    assert values["rank_correlation"] == pytest.approx([stats.spearmanr(one, two).statistic], abs=1e-3)
    agreement = run.table("01_agreement_digits")
    assert agreement["other"].tolist() == ["dm", "spread", "spread"]
    z = Pool(run.names["rest"], 0, run.names["setting"]).features.astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    groups = [z[run.names["rest"].labels == label] for label in range(10)]
    # the mean cosine with the center is the length of the mean vector
    assert values["spread"] == pytest.approx([1 - np.linalg.norm(own.mean(axis=0)) for own in groups], abs=2e-5)
    made_up = pd.DataFrame({"question": "spread", "correlation": 0.5, "low": [0.1, -0.1], "high": 0.8}, index=[0, 1])
    assert "supported for 1 of 2 methods" in run.names["answer"](made_up, {})
    assert "contradicted for 2 of 2" in run.names["answer"](made_up.assign(low=-0.9, high=-0.1), {"random": 0.9})
    assert "supported for every" in run.names["answer"](made_up.assign(low=0.2), {"random": np.nan})
    validation, rest = run.names["validation"], run.names["rest"]
    subset = dqas.quantize(rest, 0.16, method="random", seed=1).images
    row = rows[(rows["method"] == "random") & (rows["ratio"] == 0.16) & (rows["seed"] == 1)]
    recall = np.average(row["recall"], weights=validation.class_counts)
    assert recall == pytest.approx(plain_accuracy(run, subset, validation, 1))


def check_02(run: Run) -> None:
    values, names = run.values, run.names
    images = names["validation"].images[: names["CLASSICAL_IMAGES"]].astype(float)
    least = np.argsort(names["validation_importance"][: len(images)], axis=1, kind="stable")[:, :8]
    hidden = np.zeros((len(images), 16), dtype=bool)
    np.put_along_axis(hidden, least, True, axis=1)
    hidden = np.repeat(np.repeat(hidden.reshape(-1, 4, 4), 2, axis=1), 2, axis=2)
    errors = []
    for image, hole in zip(images, hidden, strict=True):
        errors.append((image[hole] - np.round(image[~hole].mean(axis=0))) ** 2)
    psnr = 10 * np.log10(255**2 / np.mean(errors))
    assert values["psnr"]["0.5"]["mean color"] == pytest.approx(psnr, abs=0.02)
    assert all(psnr["autoencoder"] > psnr["mean color"] + 2 for psnr in values["psnr"].values())
    assert values["rules"]["importance x error"] > values["rules"]["importance"] + 3  # dB of what is dropped
    subset, opened = names["subset"], names["opened"]
    assert values["stored_ratio"] == pytest.approx(len(subset) * 0.5 / len(names["known"]), abs=1e-5)
    assert values["stored_ratio"] == pytest.approx(0.1, abs=1e-3)
    assert values["bytes"]["raw pixels"] == len(subset) * 8 * 8 * 3
    assert values["bytes"]["folder"] == sum(file.stat().st_size for file in names["folder"].iterdir())
    kept = np.repeat(np.repeat(opened.kept.reshape(-1, 4, 4), 2, axis=1), 2, axis=2)
    original = names["known"].select(subset.ids).images
    assert np.array_equal(opened.images.images[kept], original[kept])  # kept patches come back bit by bit
    cost = run.table("02_accuracy")
    change = {(line["equal"], line["rule"], line["theta"]): line["difference"] for line in values["changes"]}
    assert set(change) == set(product(["images", "stored ratio"], ["importance", "importance x error"], [0.5]))
    for (equal, rule, theta), difference in change.items():
        here = cost[(cost["equal"] == equal) & (cost["drop"].isin(["-", rule])) & (cost["theta"].isin([0, theta]))]
        assert difference == pytest.approx(plain_pairs(here, "last", "none", by="patchify")[0], abs=1e-6)
        fraction = 1 - theta if equal == "stored ratio" else 1
        assert set(here.loc[here["theta"] > 0, "budget"]) == {round(0.1 * len(names["known"]) / fraction)}
    assert change["images", "importance x error", 0.5] > change["images", "importance", 0.5] + 0.05  # -2 and -25 points


def check_03(run: Run) -> None:
    values, names = run.values, run.names
    labels, z = names["data"].train.labels, names["z"]
    alike = z @ z.T
    inside = (labels == 8)[:, None] & (labels == 8)[None]
    outside = (labels == 8)[:, None] & (labels != 8)[None]
    assert values["cosine_inside"] == pytest.approx(alike[inside].mean(), abs=1e-4)
    assert values["cosine_outside"] == pytest.approx(alike[outside].mean(), abs=1e-4)
    assert values["cosine_inside"] > values["cosine_outside"]
    assert values["cosine_first_bin"] > values["cosine_last_bin"] + 0.05
    members = np.flatnonzero(labels == 8)
    assert values["equal_picks"] == 2 * (len(members) // 8)
    first_bin = names["plain_graph_cut"](z[members].astype(float), np.count_nonzero(names["bins"].bin[members] == 0))
    bins = names["bins"]
    assert set(members[first_bin]) == set(members[bins.bin[members] == 0])  # the first bin is one plain greedy pass
    moved = [np.mean(now != bins.bin) for now in names["moved_to"].values()]
    assert [values[key] for key in values if key.startswith("other_bin")] == pytest.approx(moved, abs=1e-4)


def check_04(run: Run) -> None:
    values, names = run.values, run.names
    budget, curves = values["budget"], names["curves"]
    assert all(sum(counts) == budget == round(0.08 * len(names["rest"])) for counts in values["counts"].values())
    assert np.ptp(values["counts"]["equal"]) <= 1

    def counts(log_mu: float) -> np.ndarray:
        return (curves.a * curves.b / np.exp(log_mu)) ** (1 / (1 + curves.b))

    best = counts(optimize.brentq(lambda log_mu: counts(log_mu).sum() - budget, -40, 40))
    shrunk = 0.5 * best + 0.5 * budget / len(best)
    assert np.abs(values["counts"]["curves"] - shrunk).max() < 1
    rows = run.table("04_divisions")
    assert values["accuracy"] == pytest.approx(rows.groupby("division")["accuracy"].mean().to_dict(), abs=1e-5)
    difference, _ = plain_pairs(rows, "curves", "equal", by="division")
    assert values["curves_minus_equal"] == pytest.approx(difference, abs=1e-5)
    rest, drawn = names["rest"], names["drawn"]
    assert np.bincount(rest.labels[drawn], minlength=10).tolist() == values["counts"]["yours"]
    last = rows[(rows["division"] == "yours") & (rows["seed"] == 1)]["accuracy"].item()
    assert last == pytest.approx(plain_accuracy(run, rest.take(drawn), names["validation"], 1))


def check_05(run: Run) -> None:
    values, names = run.values, run.names
    subset, images = names["subset"], names["images"]
    labels = {int(i): int(label) for i, label in zip(images.ids, images.labels, strict=True)}
    assert values["counts"] == np.bincount([labels[int(i)] for i in subset.ids], minlength=10).tolist()
    assert sum(values["counts"]) == 120
    rows = run.table("05_ablations")
    assert values["accuracy"] == pytest.approx(rows.groupby("method")["accuracy"].mean().to_dict(), abs=1e-5)
    watched = rows[(rows["method"] == "dqas") & (rows["seed"] == 0)]["accuracy"].item()
    assert watched == pytest.approx(plain_accuracy(run, subset.images, names["data"].test, 0))
    rounds, trace = subset.trace["round"], subset.trace["counts"]
    for number in range(len(trace)):  # the counts of a round are those of all images taken so far
        taken = images.labels[(rounds >= 0) & (rounds <= number)]
        assert np.bincount(taken, minlength=10).tolist() == trace[number].tolist()
    high, low = (subset.trace["scores"][-1][names[which]].mean() for which in ("taken", "passed"))
    assert high > 0 > low  # what is taken lowers the error, what is passed over would raise it


def check_06(run: Run) -> None:
    values, data = run.values, run.names["data"]
    rows, classes = run.table("06_trainings_digits"), run.table("06_classes_digits")
    assert values["trainings"] == len(rows) == 2 * 3 + 3
    (pair,) = values["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == ("dq", "random", 3)
    assert (pair["difference"], pair["half"]) == pytest.approx(plain_pairs(rows, "dq", "random"), abs=1e-6)
    of_test = dict(zip(data.test.class_names, data.test.class_counts, strict=True))
    for (method, seed), part in classes.groupby(["method", "seed"]):
        right = sum(recall * of_test[name] for name, recall in zip(part["class"], part["recall"], strict=True))
        row = rows[(rows["method"] == method) & (rows["seed"] == seed)].iloc[0]
        assert row["accuracy"] == pytest.approx(right / len(data.test))
        assert part["selected"].sum() == row["budget"] == (1201 if method == "full" else 120)
    subset = dqas.quantize(data.train, 0.1, method="random", seed=1).images
    row = rows[(rows["method"] == "random") & (rows["seed"] == 1)].iloc[0]
    assert row["accuracy"] == pytest.approx(plain_accuracy(run, subset, data.test, 1))
    verdict, of_classes = run.names["verdict"], run.names["of_classes"]
    given = pd.DataFrame({"first": "dq", "second": ["random", "dqas"], "ratio": 0.1, "difference": [-0.04, 0.001]})
    given = given.assign(half=[0.01, 0.02], p=[0.001, 0.9], p_holm=[0.002, 0.9], correlation=[-0.4, np.nan])
    assert "above zero: none; below zero: to Random at 10 %; open: 1" in verdict(given)
    assert "the largest difference is the one to Random at 10 %" in verdict(given)
    assert "-0.40 to -0.40" in verdict(given)
    few = given.assign(half=np.nan, p=np.nan, p_holm=np.nan, correlation=np.nan)
    assert "first look" in verdict(few)
    assert "nan" not in verdict(few)
    alike = pd.DataFrame({"random": [3.0, 3.0], "dq": [3.0, 3.0]}, index=["cat", "dog"])
    gain = pd.Series([-2.0, -1.0], index=alike.index)
    assert "2 of 2 lose" in of_classes(alike, gain)
    assert "alike" in of_classes(alike, gain)
    assert "correlate with +1.00" in of_classes(alike.assign(dq=[3.0, 4.0]), gain)


def check_07(run: Run) -> None:
    values, train, ids = run.values, run.names["data"].train, run.names["ratio"].ids
    assert values["ratios"] == [0.05, 0.1]
    assert values["explorers"] == ["ratio", "rounds"]
    assert values["missing"] == ""
    largest = 0.0
    for ratio in values["ratios"]:
        counts = np.bincount(train.labels[np.isin(train.ids, ids["dqas", ratio])], minlength=10)
        assert counts.sum() == round(ratio * 1201)
        largest = max(largest, float(counts.max() / counts.mean()))
    assert values["largest_relative_count"] == pytest.approx(largest, abs=1e-4)
    words = run.names["of_rows"](np.array([[3, *[2] * 9], [5] * 5 + [15] * 5]))
    assert "**0** gets most, 1.43 times an equal count, and **9 classes** fewest" in words
    assert "as equal as whole numbers allow" in words
    assert "At the largest ratio **5, 6, 7, 8, 9** gets most" in words
    assert "do not come closer" in words
    assert "as equal" not in run.names["of_rows"](np.array([[4, *[2] * 9], [20] * 10]))
    rows = np.array([[2] * 9 + [3], [1, 5, 3, 3, 3, 3, 3, 3, 3, 3], [5, 1, 3, 3, 3, 3, 3, 3, 3, 3]])
    assert "correlate by -1.00," in run.names["of_neighbors"](rows)
    assert "nothing to compare" in run.names["of_neighbors"](rows[:2])
    lean = run.names["lean"]
    assert lean(np.full(48, 0.6)) == "0.60 on average (atypical)"  # two deviations are 2 / (12 * 48) ** 0.5 = 0.083
    assert lean(np.full(48, 0.58)) == "0.58 on average (neither)"
    assert "representative" in lean(np.full(48, 0.4))
    place = run.names["place"]
    first_bin = run.names["ratio"].bins.bin == 0
    assert place[first_bin].max() < place[~first_bin & (train.labels == 0)].max()
    accuracy = {("a", 0.1): (2, 80.0, np.nan), ("b", 0.1): (2, 77.0, np.nan), ("b", 0.2): (2, 90.0, np.nan)}
    accuracy["a", 0.2] = (2, 91.0, np.nan)
    assert "b minus a at 10 %, -3.0 points" in run.names["of_curves"](accuracy, "a")
    assert "no other curve" in run.names["of_curves"]({("a", 0.1): accuracy["a", 0.1]}, "a")
    words = run.names["of_rounds"](np.array([0, 0, 1, -1]), np.array([0.1, 0.3, 0.9, 0.5]), np.array([[1, 1], [1, 2]]))
    assert "The initial set lies at 0.20" in words
    assert "**1** grows most, by 17 percentage points" in words
    selection = run.names["selection"]
    assert set(selection.ids) == set(ids["dqas", 0.1])  # the rounds are those of the selection shown


def check_08(run: Run) -> None:
    values, rows, pairs = run.values, run.table("08_trainings"), run.table("08_paired")
    assert (values["trainings"], values["differences"]) == (len(rows), len(pairs)) == (9, 1)
    expected = plain_pairs(rows[rows["ratio"] == 0.1], "dq", "random")
    assert tuple(pairs.loc[0, ["difference", "half"]]) == pytest.approx(expected)
    assert values["shown"] == int(abs(expected[0]) > expected[1])
    assert values["comparable"] == 0  # nothing is published for the digits
    costs = run.table("08_costs").set_index("method")
    assert costs.loc["dq", "seconds"] > costs.loc["random", "seconds"]
    assert costs["bytes (%)"].to_numpy() == pytest.approx(100 * costs["bytes"].to_numpy() / (1201 * 8 * 8 * 3))
    networks = run.table("08_networks").iloc[0]
    mean = 100 * rows[rows["method"] == "dq"]["accuracy"].mean()
    assert networks["dq"] == pytest.approx(mean, abs=1e-4)
    protocols = run.table("08_protocols").set_index("protocol")["mean"]
    few = dqas.quantize(run.names["data"]["digits"].train, 0.1, method="random", seed=0).images
    assert run.names["other"].total_steps(len(few)) < 0.12 * run.names["recipe"].total_steps(len(few))
    assert protocols["fixed-step"] > protocols["fixed-epoch"] + 0.05
    moved = pd.DataFrame({"fixed-epoch": [70.0], "fixed-step": [78.0]}, index=[0.1])
    assert "compares protocols, not methods" in run.names["of_protocols"](moved, pairs)
    assert "moves less" in run.names["of_protocols"](moved, pairs.assign(difference=0.2))
    assert "nothing is compared" in run.names["of_protocols"](moved[["fixed-step"]], pairs)
    stages = run.names["stages_of"]({"bins": 5.0, "features": 3.0, "round": 1.0}, 7.0)
    assert list(stages.values()) == [3.0, 0.0, 2.0, 0.0, 1.0, 1.0]  # networks, autoencoder, importance and bins ...
    nested = {"importance": 5.0, "autoencoder": 4.0, "bins": 6.0, "features": 9.0, "pilots": 2.0, "round": 3.0}
    assert sum(run.names["stages_of"](nested, 21.0).values()) == 21.0  # 5 + 4 + 6 + 2 + 3, and one beside them
    spent = run.names["stages"].sum(axis=1)
    assert spent.to_numpy() == pytest.approx(costs.loc[spent.index, "seconds"].to_numpy(), abs=0.01)


def check_09(run: Run) -> None:
    values, rows = run.values, run.table("09_trainings_digits")
    assert values["trainings"] == len(rows) == 3 * 2
    assert set(rows["budget"]) == {120}
    for name, difference in values["differences"].items():
        assert difference == pytest.approx(plain_pairs(rows, name, "dqas")[0], abs=1e-6)
    orders = run.table("09_orders_digits")
    whole, dropped = (orders[orders["patchify"] == order].sort_values("seed") for order in ("none", "last"))
    without = rows[rows["method"] == "no patchify"].sort_values("seed")
    assert whole["accuracy"].tolist() == without["accuracy"].tolist()  # the same selections, the same trainings
    assert set(dropped["budget"]) == {round(0.1 * 1201 / 0.75)}
    assert dropped["stored_ratio"].to_numpy() == pytest.approx(0.1, abs=1e-3)
    shown = pd.DataFrame({"variant": ["shuffled counts", "no bins"], "difference": [0.01, 0.03], "half": 0.01, "n": 3})
    shown = shown.assign(p_holm=[0.2, 0.01], correlation=np.nan)
    sentence = run.names["verdict"](shown)
    assert "above zero: no bins; below zero: none; open: 1" in sentence
    assert "The control is open" in sentence
    assert "a first look, not a result" in run.names["verdict"](shown.assign(half=np.nan, p_holm=np.nan))
    assert "The control is *better*" in run.names["verdict"](shown.assign(p_holm=0.01))
    assert "The control" not in run.names["verdict"](shown.assign(p_holm=0.01, difference=-0.02))
    two = shown.assign(variant=["equal counts", "random samples"], difference=[-0.01, 0.02])
    assert "class counts are worth +1.0 points here, samples -2.0" in run.names["verdict"](two)
    saved = {path.stem: np.load(path) for path in (run.folder / "ids").glob("*.npy")}
    assert len(saved) == (3 + 2) * 2  # of the variants and of the orders, each under a name of its own
    assert {len(np.unique(ids)) for ids in saved.values()} == {120, 160}
    same = "orders-digits-dqas-10pct-seed1", "digits-no-patchify-10pct-seed1"
    assert saved[same[0]].tolist() == saved[same[1]].tolist()
    trials = pd.DataFrame({"method": "dqas", "patchify": ["first", "last"] * 3, "drop": "importance", "theta": 0.25})
    trials = trials.assign(seed=[0, 0, 1, 1, 2, 2], accuracy=[0.9, 0.8, 0.91, 0.8, 0.9, 0.81])
    words = run.names["in_words"](run.names["first_minus_last"](trials))
    assert "First minus last: The difference is +10.0 ± 2.5 points (by importance, 25 %)." in words
    assert "above zero: by importance, 25 %" in words
    assert "first look" in run.names["in_words"](run.names["first_minus_last"](trials[trials["seed"] < 2]))


def check_10(run: Run) -> None:
    values, names = run.values, run.names
    contents: dict[str, list] = {}
    formats = (".png", ".webp", ".bmp", ".gif", ".jpg")
    for file in sorted(path for path in names["folder"].rglob("*") if path.suffix in formats):
        contents.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), []).append(file)
    of_several_classes = [len({file.parent for file in files}) > 1 for files in contents.values()]  # nobody knows whose
    copies = sum(len(files) - 1 for files in contents.values()) + sum(of_several_classes)
    assert values["left_out"] == 3 + copies == 3 + 4  # cut off, a web page, an unread format
    assert sum(values["images"]) == sum(map(len, contents.values())) - 2 - copies
    budget = round(0.15 * values["images"][0])
    assert all(sum(counts) == budget for counts in values["class_counts"].values())
    results = run.table("10_results").rename(columns={"accuracy": "plain", "macro": "accuracy"})
    assert values["macro_gain"] == pytest.approx(plain_pairs(results, "dqas", "random")[0], abs=1e-6)
    assert values["macro_gain_over_equal"] == pytest.approx(plain_pairs(results, "dqas", "random, equal")[0], abs=1e-6)
    shown = pd.DataFrame({"second": ["random", "random, equal"], "difference": [-0.03, 0.0], "half": 0.01})
    shown = shown.assign(p_holm=[0.02, 0.9], correlation=np.nan)
    sentence = names["verdict"](shown)
    assert "from -3.0 ± 1.0 points (to Random)" in sentence
    assert "below zero: to Random; open: 1" in sentence
    assert "a first look" in names["verdict"](shown.assign(half=np.nan, p_holm=np.nan))
    gained = names["of_counts"](np.array([0, -3, 2, 1, 0, 0, 0, 0, 0, 0]))
    assert "most to class 2 (+2), fewest to class 1 (-3)" in gained
    files = [file for file in names["saved"].rglob("*") if file.is_file()]
    assert values["bytes"]["compressed"] == sum(file.stat().st_size for file in files)
    words = names["of_bytes"]({"autoencoder.safetensors": 900, "labels.npy": 50}, 1000, 400, 10)
    assert "10 images take 1,000 bytes, not fewer than the 400" in words
    assert "`autoencoder.safetensors` with 900 bytes, 90% of all; the rest, pictures included, is 10 bytes per" in words
    assert "bytes, fewer than the 4,000" in names["of_bytes"]({"a": 1}, 1000, 4000, 10)
    exported = names["listed"].iloc[0]
    buffer = io.BytesIO((names["exported"] / exported["file"]).read_bytes())
    place = names["opened"].images.positions([exported["id"]])[0]
    assert np.array_equal(np.asarray(Image.open(buffer).convert("RGB")), names["opened"].images.images[place])
    data, net = names["data"], names["net"].eval()
    right = 0
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        with torch.no_grad():
            scores = net(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
        right += int(scores.argmax()) == int(label)
    assert values["accuracy_plain_pytorch"] == pytest.approx(right / len(data.test), abs=2e-3)


def check_12(run: Run) -> None:
    values, rows, names = run.values, run.table("12_trainings_digits"), run.names
    assert values["trainings"] == len(rows) == 3 * 3
    assert len(names["pool"]) + len(names["judge"]) == 1201
    assert not np.isin(names["judge"].ids, names["pool"].ids).any()
    for name in ("herding", "window 30/10, herding"):
        assert values["differences"][f"0.1 {name}"] == pytest.approx(plain_pairs(rows, name, "random")[0], abs=1e-6)
    subset = dqas.quantize(names["pool"], 0.1, method="random", seed=2).images
    accuracy = rows[(rows["method"] == "random") & (rows["seed"] == 2)]["accuracy"].item()
    assert accuracy == pytest.approx(plain_accuracy(run, subset, names["judge"], 2))


def check_11(run: Run) -> None:
    rows, names = run.table("11_trainings_digits"), run.names
    assert set(rows["arm"]) == {"random, lossless", "half, twice the bytes", "fitted"}
    assert (rows["bytes"] <= rows["budget"]).all()
    assert (rows["bytes"] >= 0.99 * rows["budget"]).all()
    whole = dqas.quantize(names["data"].train, 1.0, method="random")
    sheets = sum(
        entry["bytes"] for entry in dqas.open_compressed(whole.save(run.folder / "whole")).manifest["files"].values()
    )
    assert run.values["reference"] == pytest.approx(sheets, rel=0.05)  # and a manifest
    half = rows[rows["arm"] == "half, twice the bytes"].iloc[0]
    assert half["n_images"] == round(0.5 * len(names["data"].train))
    files = run.table("11_files_digits").set_index("codec")
    shown, content = names["shown"], io.BytesIO()
    Image.fromarray(shown.images[0] * 0).save(content, "JPEG", quality=90)
    assert files.loc["JPEG, quality 90", "a black picture"] == len(content.getvalue()) > 600  # tables of the code
    assert (files["in sheets"] < files["a file each"] / 2).all()
    assert (files["error (gray levels)"] == 0).tolist() == ["lossless" in name for name in files.index]
    small = pd.DataFrame({"codec": ["PNG, lossless", "JPEG, quality 90"], "a black picture": [100, 600]})
    small = small.assign(
        **{"a file each": [400.0, 700.0], "in sheets": [90.0, 50.0], "error (gray levels)": [0.0, 2.0]}
    )
    assert "takes 700 in JPEG, quality 90, more than raw; a black one takes 600" in names["of_files"](small, 192)
    assert "no more than raw" in names["of_files"](small, 3072)
    assert "PNG, lossless in sheets: 90 bytes per picture, 47% of the raw pixels" in names["of_files"](small, 192)
    arms = pd.DataFrame({"asked": "30%", "arm": ["fitted", "random, lossless"] * 3, "seed": [0, 0, 1, 1, 2, 2]})
    arms = arms.assign(accuracy=[0.8, 0.7, 0.81, 0.7, 0.8, 0.71])
    assert "the higher mean at 1 of 1 budgets. The difference is +10.0" in names["of_title"](arms)
    worse = arms.assign(accuracy=1 - arms["accuracy"])
    assert "the higher mean at 0 of 1 budgets" in names["of_title"](worse)
    assert "not both here" in names["of_title"](arms[arms["arm"] == "fitted"])
    force = {"bytes": int(half["budget"]), "n_images": int(half["n_images"])}  # the manifest names the setting
    subset = dqas.quantize(names["data"].train, **force, method="random", setting=names["setting"])
    assert half["accuracy"] == pytest.approx(plain_accuracy(run, subset.images, names["data"].test, 0), abs=1e-6)


def check_13(run: Run) -> None:
    values, names = run.values, run.names
    rows, methods = run.table("13_trainings_digits"), run.table("13_methods").set_index("method")
    assert list(methods.index) == list(dqas.METHODS)
    assert (methods[["idea", "source", "needs", "cost"]] != "").all(axis=None)
    assert not (methods["cost"] == "?").any()  # every method of the kit says what it costs
    assert {"ours", "abstract"} <= set(re.findall(r"ours|abstract", " ".join(methods["source"])))
    for name, line in methods.iterrows():
        assert line["needs"] == (", ".join(getattr(dqas.METHODS[name], "needs", ())) or "nothing")
    assert "(https://arxiv.org/abs/1611.07725)" in methods.loc["herding", "source"]
    assert values["trainings"] == len(rows)
    assert {row["method"] for row in values["survey"]} >= {"full", "random", "herding", "el2n", "dq"}
    every = names["every"].set_index("method")
    for name in ("herding", "el2n", "dq"):
        pair = plain_pairs(rows, name, "random")
        assert tuple(every.loc[name, ["difference", "difference_half"]]) == pytest.approx(pair)
    z = names["pool"].features.astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    labels, picks = names["data"].train.labels, names["picked"]["dq"]
    means = np.stack([z[labels == label].mean(axis=0) for label in range(10)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosine = names["ordered"].set_index("method")["cosine"]["dq"]
    assert cosine == pytest.approx(np.einsum("ij,ij->i", z[picks], means[labels[picks]]).mean(), abs=1e-5)
    made_up = pd.DataFrame({"method": ["dm", "a", "random", "full"], "label": ["DM", "A", "Random", "All"]})
    made_up = made_up.assign(kind=["distilled", "selection", "selection", "all"], accuracy=[0.9, 0.8, 0.7, 0.95])
    made_up = made_up.assign(half=0.01, difference=[0.2, 0.1, np.nan, 0.25], difference_half=0.02, n=3)
    made_up = made_up.assign(p_holm=[0.01, 0.2, np.nan, 0.01], correlation=np.nan)
    sentence = names["verdict"](made_up)
    assert "0 have a lower mean than random" in sentence
    assert "+10.0 points against the best selection. Here another way" in sentence
    assert "above zero: DM; below zero: none; open: 1" in sentence
    assert "another way" not in names["verdict"](made_up[1:])
    lean = pd.DataFrame({"method": ["a", "b", "random", "c", "d"], "cosine": [0.99, 0.97, 0.95, 0.9, 0.8]})
    lean = lean.assign(label=lean["method"], accuracy=[0.8, 0.9, 0.95, 0.7, 0.5])
    assert "the lower its accuracy" in names["leaning"](lean)
    assert "the higher its accuracy" in names["leaning"](lean.assign(accuracy=[0.85, 0.8, 0.5, 0.9, 0.95]))
    assert "is not decided" in names["leaning"](lean.assign(accuracy=[0.5, 0.9, 0.6, 0.9, 0.7]))
    assert "too few" in names["leaning"](lean.iloc[1:3])


def check_14(run: Run) -> None:
    values, names = run.values, run.names
    rows, final = run.table("14_trainings_digits"), run.table("14_test_digits")
    for table, said in ((rows, values["validation"]), (final, values["test"])):
        for ratio in (0.05, 0.1):
            part = table[table["ratio"] == ratio]
            expected, _ = plain_pairs(part, "every-kth", "herding")
            assert said[f"to Herding at {100 * ratio:g} %"] == pytest.approx(expected, abs=1e-6)
    assert not np.isin(names["judge"].ids, names["pool"].ids).any()
    train, method = names["data"].train, names["EveryKth"]()
    assert names["faults"](method, train, 77) == []
    careless = names["faults"](names["Careless"](), train, 77)
    assert careless == ["gives another result for the same seed", "depends on the order of the images"]
    picks = method.select(Pool(train, 0, names["setting"]), 120)
    z = Pool(train, 0, names["setting"]).features.astype(float)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    members = np.flatnonzero(train.labels == 3)
    far = np.linalg.norm(z[members] - z[members].mean(axis=0), axis=1).argsort(kind="stable").argsort()
    ranks = np.sort(far[np.isin(members, picks)])
    assert np.ptp(np.diff(ranks)) <= 1  # evenly spaced over the whole order
    assert names["check"](names["Careless"]()) != "right"
