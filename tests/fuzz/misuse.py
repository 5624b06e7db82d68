"""Misuses of the public interface, as a table: what is called, and values that it must refuse, each with its name.

Every row is (what, call, values): call(value) must raise InputError or DataError with a message that names what was
given. `examine` says of each what happened in its place: an error from the inside, a value that was taken, a message
that does not say what was given.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import dqas_lib as dqas
from dqas_lib import methods as m
from dqas_lib.active import counts, estimators
from dqas_lib.active.round import Rounds
from dqas_lib.budget import initialization
from dqas_lib.budget.class_counts import largest_remainder, power_law_counts
from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.compressed.codecs import Codec
from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import DqasError, InputError
from dqas_lib.data.load import limited
from dqas_lib.data.long_tailed import imbalanced, long_tailed, long_tailed_counts
from dqas_lib.experiments import statistics
from dqas_lib.experiments.compare import compare
from dqas_lib.experiments.distillation import distil
from dqas_lib.experiments.evaluate import evaluate, select
from dqas_lib.experiments.makers import Distillation, Reencoding
from dqas_lib.experiments.survey import overview, survey
from dqas_lib.explorers.frames import Dial
from dqas_lib.notebook import run_outputs
from dqas_lib.patches import masks
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.pool import Pool
from dqas_lib.reproduce.profiles import load_profile

Row = tuple[str, Callable[[Any], object], Sequence[Any]]

NAN, INF = float("nan"), float("inf")
NOT_WHOLE = (-1, 1.5, "2", None, [1], NAN, 2j)  # never a whole number >= 0
NOT_COUNT = (*NOT_WHOLE, 0, True)
NOT_NUMBER = ("0.1", None, [0.1], NAN, 1j, b"1", True)
NOT_FRACTION = (*NOT_NUMBER, -0.1, 1.5, INF)
NOT_NAME = ("nope", "", 3, ["digits"], b"x", {}, 0.5)  # of anything that stands in a list of names
NOT_FLAG = ("no", 3, [], 0.5)
NOT_PATH = (None, 3, ["a"], "\0", "a" * 5000, 1.5)


def table(data: dqas.DataSet, folder: Path) -> Iterator[Row]:
    """All rows; data: a small data set; folder: an empty one."""
    train, cpu = data.train, dqas.Setting(recipe=dqas.Recipe("tiny", steps=2, batch_size=8))
    not_images = (None, "digits", 3, data, train.images, [train], {}, dqas.ImageSet)
    not_data = (None, "digits", 3, train, train.images, (train, data.test), {})
    not_setting = ("cpu", 3, {}, dqas.Setting, dqas.RECIPES["quick"], [cpu], Path("data"))
    not_method = ("nope", "DQAS", None, 3, [], m.Random, object(), {"name": "random"}, b"dq")
    quantize, coder = dqas.quantize, AutoencoderRecipe("tiny", 1, batch_size=4, width=8, depth=1, decoder_width=8)

    def patched(**changes: Any) -> object:
        return dqas.patchify(train, **{"setting": cpu, "autoencoder": coder, **changes})

    yield "quantize: images", lambda v: quantize(v, 0.1, method="random", setting=cpu), not_images
    not_ratio = (*NOT_NUMBER[:2], *NOT_FRACTION[3:], 0, 1e-9, [], [0.1, 2], [None], {}, {0.1}, np.ones((1, 1)), object)
    yield "quantize: ratio", lambda v: quantize(train, v, method="random", setting=cpu), not_ratio
    yield "quantize: method", lambda v: quantize(train, 0.1, method=v, setting=cpu), not_method
    yield "quantize: seed", lambda v: quantize(train, 0.1, method="random", seed=v, setting=cpu), (*NOT_WHOLE, True)
    yield "quantize: setting", lambda v: quantize(train, 0.1, method="random", setting=v), not_setting
    for name, values in {
        "patchify": (*NOT_NAME, True, ["first"]),
        "theta": (*NOT_FRACTION, 1, "0.25", {}),
        "drop": NOT_NAME,
        "patch_size": (*NOT_COUNT[:3], *NOT_COUNT[4:], 3, 16),
        "ratio_kind": NOT_NAME,
        "autoencoder": (*NOT_NAME, None, object()),
    }.items():
        options = {"method": "random", "setting": cpu, "patchify": "first", "autoencoder": coder}
        yield f"quantize: {name}", lambda v, o=options, n=name: quantize(train, 0.2, **{**o, n: v}), values
        if name not in ("patchify", "ratio_kind"):
            yield f"patchify: {name}", lambda v, n=name: patched(**{n: v}), values
    yield "patchify: images", lambda v: dqas.patchify(v, setting=cpu, autoencoder=coder), not_images
    yield "patchify: setting", lambda v: patched(setting=v), not_setting
    yield "patchify: seed", lambda v: patched(seed=v), NOT_WHOLE

    def compared(**changes: Any) -> object:
        given = {"data": data, "methods": ["random"], "ratios": [0.1], "seeds": [0], "setting": cpu, "workers": 1}
        return compare(**{**given, "compute": False, **changes})

    for name, values in {
        "data": not_data,
        "methods": (None, 3, [3], ["nope"], [None], {"a": 3}, {"a": m.Random}, ["dq", "dq"], object()),
        "ratios": (None, 0.1, "0.1", [None], [0], [1.5], ["0.1"], [NAN], [[0.1]], [], {}),
        "seeds": (None, 0, "0", [None], [-1], [0.5], ["0"], [[0]], []),
        "setting": not_setting,
        "evaluate_with": (["nope"], [3], 3, [None], "nope", [["resnet9"]]),
        "evaluate_recipe": ("nope", 3, ["quick"], {}, 0.5),
        "patchify": ("nope", 3, ["nope"], [3], {}),
        "theta": ("x", 2, [2], ["x"], NAN, {}),
        "drop": ("nope", 3, ["nope"], [3], {}),
        "autoencoder": ("nope", 3, [], {}, object()),
        "ratio_kind": NOT_NAME,
        "workers": (0, -1, 1.5, "2", [1], NAN, True),
        "compute": NOT_FLAG,
    }.items():
        given = {"patchify": "first"} if name in ("theta", "drop", "autoencoder") else {}
        yield f"compare: {name}", lambda v, n=name, g=given: compared(**{**g, n: v}), values

    def surveyed(**changes: Any) -> object:
        given = {"data": data, "ratio": 0.1, "seeds": [0], "methods": ["random"], "others": ["jpeg"], "setting": cpu}
        return survey(**{**given, "workers": 1, **changes})

    for name, values in {
        "data": not_data,
        "ratio": (None, "0.1", [0.1], 0, 1.5, NAN, {}),
        "seeds": (None, 0, "0", [-1], ["0"]),
        "methods": (3, [3], ["nope"], {"a": 3}),
        "others": (["nope"], [3], 3),
        "setting": not_setting,
        "measure": NOT_NAME,
        "workers": (0, 1.5, "2"),
    }.items():
        yield f"survey: {name}", lambda v, n=name: surveyed(**{n: v}), values
    rows = pd.DataFrame({"method": ["a", "b"], "seed": [0, 0], "ratio": [0.1, 0.1], "accuracy": [0.5, 0.6]})
    yield "overview: rows", overview, (None, [], "rows", rows[["seed"]], pd.DataFrame(), {})
    yield "overview: reference", lambda v: overview(rows.assign(kind="x", n_images=1), v), ("nope", 3, None, ["a"])
    yield "select: ratio", lambda v: select(train, v, "random", 0, cpu), (None, "0.1", 0, [0.1], 2)
    yield "select: images", lambda v: select(v, 0.1, "random", 0, cpu), not_images
    yield "evaluate: images", lambda v: evaluate(v, data.test, cpu), not_images
    yield "evaluate: test", lambda v: evaluate(train, v, cpu), not_images
    yield "evaluate: seed", lambda v: evaluate(train, data.test, cpu, v), NOT_WHOLE
    renamed = dataclasses.replace(data.test, class_names=tuple(f"class {c}" for c in range(train.n_classes)))
    turned = dataclasses.replace(data.test, class_names=train.class_names[::-1])
    others = (renamed, turned, data.test.with_images(data.test.images.repeat(2, axis=1).repeat(2, axis=2)))
    yield "evaluate: test of other classes or size", lambda v: evaluate(train, v, cpu), others
    for name, values in {
        "images": not_images,
        "evaluate_on": (*not_images[1:], *others),
        "setting": not_setting,
        "seed": NOT_WHOLE[1:],
        "weights": ("x", 3, {}, -np.ones(len(train)), np.full(len(train), NAN), np.zeros(len(train))),
        "after_step": ("x", 3, []),
    }.items():
        given = {"images": train, "setting": cpu}
        yield f"train: {name}", lambda v, n=name, g=given: dqas.train(**{**g, n: v}), values
    network = dqas.train(train, setting=cpu).network
    for function in (dqas.predict, dqas.extract):
        yield f"{function.__name__}: images", lambda v, f=function: f(network, v), (None, "x", 3, data, train, {})
        yield (
            f"{function.__name__}: network",
            lambda v, f=function: f(v, train.images),
            (None, "resnet9", 3, dqas.train),
        )
    yield "Setting: network", lambda v: dqas.Setting(network=v), NOT_NAME
    yield "Setting: recipe", lambda v: dqas.Setting(recipe=v), NOT_NAME
    yield (
        "Setting: device",
        lambda v: dqas.Setting(device=v),
        ("mps", "meta", "gpu", 3, None, "cuda:99", [], {}),
    )
    yield "Setting: store", lambda v: quantize(train, 0.1, setting=dqas.Setting(store=v)), ("data", Path("data"), 3, {})
    yield "Setting: progress", lambda v: quantize(train, 0.1, setting=dqas.Setting(progress=v)), NOT_FLAG
    yield "Recipe: steps", lambda v: dqas.Recipe("x", steps=v), NOT_COUNT
    yield "Recipe: epochs", lambda v: dqas.Recipe("x", epochs=v), (0, -1, INF, *NOT_NUMBER)
    for name, values in {
        "lr": (*NOT_NUMBER, -0.1, INF),
        "momentum": (*NOT_FRACTION, 1.0),
        "weight_decay": (*NOT_NUMBER, -1e-4, INF),
        "warmup": NOT_FRACTION,
        "label_smoothing": NOT_FRACTION,
        "pad": NOT_FRACTION,
        "nesterov": (None, *NOT_FLAG),
        "batch_size": NOT_COUNT,
        "evaluations": NOT_COUNT,
        "name": (None, 3, b"x"),
        "precision": NOT_NAME,
        "sides": (((2, 0.5),), ((0.5, 0.5), (0.6, 0.4)), "ab", 0.5, (0.5, 0.5), ((0.5,),), ((0.5,) * 3,), (("a", 1),)),
    }.items():
        yield f"Recipe: {name}", lambda v, n=name: dqas.Recipe(**{"name": "x", "steps": 1, n: v}), values
    yield "Store: root", dqas.Store, NOT_PATH
    store = dqas.Store(folder / "store")
    yield "Store: stage", lambda v: store.get(v, {}, [dqas.Store]), ("", "../x", "a/b", None, 3, ["x"], "\0")
    yield (
        "Store: settings",
        lambda v: store.get("x", v, [dqas.Store]),
        (None, 3, "x", {1: 2}, {"a": NAN}, {"a": object()}, ["a"]),
    )
    yield "Store: code", lambda v: store.get("x", {}, v), ([3], [print], [np.mean], 3, "x", None)
    put = lambda v: store.put("x", {}, v, seconds=0.0, code=[dqas.Store])  # noqa: E731
    yield "Store: result", put, (None, 3, [1], {"provenance": np.ones(1)}, {"a": np.array([object()])})
    pixels, labels, names = train.images, train.labels, train.class_names
    n = len(train)
    made = lambda v: dqas.ImageSet(v, labels, train.ids, names)  # noqa: E731
    yield "ImageSet: images", made, (None, "x", 3, pixels / 255, pixels[..., 0], pixels[:3], pixels.tolist(), [])
    label = (None, "x", 3, labels[:3], labels / 2, labels - 5, labels + 50, ["a"] * n, labels[:, None], [[0]] * n, {})
    yield "ImageSet: labels", lambda v: dqas.ImageSet(pixels, v, train.ids, names), label
    ids = (None, "x", 3, train.ids[:3], np.zeros(n, int), train.ids / 2, [[0]] * n, [None] * n, {})
    yield "ImageSet: ids", lambda v: dqas.ImageSet(pixels, labels, v, names), ids
    names_ = (None, "abc", 3, [3] * 10, ("a",) * 10, {}, [None] * 10)
    yield "ImageSet: class_names", lambda v: dqas.ImageSet(pixels, labels, train.ids, v), names_
    yield "ImageSet: name", lambda v: dqas.ImageSet(pixels, labels, train.ids, names, v), (None, 3, ["x"], b"x")
    mirror = lambda v: dqas.ImageSet(pixels, labels, train.ids, names, "x", v)  # noqa: E731
    yield "ImageSet: mirror", mirror, (None, *NOT_FLAG)
    yield "ImageSet.select", train.select, ([-1], ["x"], [10**9])
    yield "ImageSet.hold_out: fraction", lambda v: train.hold_out(v, 0), (0, 1, -1, NAN, 1.5)
    yield "load_images: source", dqas.load_images, ("CIFAR10", "nope", "x.npz", *NOT_PATH, {}, b"digits")
    for name, values in {
        "on_error": NOT_NAME,
        "root": NOT_PATH[1:],
        "size": (0, -1, 1.5, "32", [32], True, 10**9),
        "fit": NOT_NAME,
        "duplicates": NOT_NAME,
    }.items():
        yield f"load_images: {name}", lambda v, n=name: dqas.load_images(folder, **{"progress": False, n: v}), values
    yield "data_report: path", dqas.data_report, (*NOT_PATH, "nope", __file__, {})
    yield "limited: per_class", lambda v: limited(data, v), NOT_WHOLE
    yield "limited: data", lambda v: limited(v, 5), not_data
    yield "long_tailed: images", lambda v: long_tailed(v, 10), not_images
    yield "long_tailed: factor", lambda v: long_tailed(train, v), (0.5, 0, -1, NAN, INF, "10", None, [10], True, 1j)
    yield "long_tailed: seed", lambda v: long_tailed(train, 10, v), NOT_WHOLE
    yield "long_tailed_counts: factor", lambda v: long_tailed_counts(3, 10, v), (0.5, NAN, "10", None)
    yield "imbalanced: factor", lambda v: imbalanced(data, v), (0.5, NAN, "10", None, [10])
    yield "imbalanced: data", lambda v: imbalanced(v, 10), not_data
    yield "export_folder: images", lambda v: dqas.export_folder(v, folder / "out"), not_images
    yield "export_folder: path", lambda v: dqas.export_folder(train, v), (*NOT_PATH, folder)
    selection = quantize(train, 0.1, method="random", setting=cpu)
    yield "Selection.save: path", selection.save, (*NOT_PATH, folder)
    yield "Selection.save: overwrite", lambda v: selection.save(folder / "set", overwrite=v), NOT_FLAG
    yield "Selection.save_indices: path", selection.save_indices, (*NOT_PATH, folder)
    yield "Selection.save_indices: pool", lambda v: selection.save_indices(folder / "i.npy", v), not_images[1:]
    yield "save_compressed: images", lambda v: save_compressed(folder / "set", v), not_images
    kept = (3, "x", np.ones((2, 4), bool), np.ones((n, 3), bool), np.ones(n, bool), np.zeros((n, 16), bool))
    yield "save_compressed: kept", lambda v: save_compressed(folder / "set", train, kept=v), kept
    yield (
        "save_compressed: settings",
        lambda v: save_compressed(folder / "set", train, settings=v),
        (*(3, "x", [1], {"a": object()}, {"a": NAN}),),
    )
    yield "open_compressed: path", dqas.open_compressed, (*NOT_PATH, folder, folder / "nope", __file__)
    yield "open_compressed: device", lambda v: dqas.open_compressed(folder, device=v), ("mps", "gpu", None, 3, [])
    yield "Codec: format", Codec, NOT_NAME
    yield "Codec: quality", lambda v: Codec("JPEG", v), (-1, 101, "90", [90], True, NAN)
    yield "distil: images", lambda v: distil(v, 1, steps=1, setting=cpu), not_images
    yield "distil: per_class", lambda v: distil(train, v, steps=1, setting=cpu), (*NOT_COUNT, 10**6)
    yield "distil: steps", lambda v: distil(train, 1, steps=v, setting=cpu), NOT_COUNT
    yield "distil: matching", lambda v: distil(train, 1, matching=v, steps=1, setting=cpu), NOT_NAME
    yield "Distillation: matching", lambda v: Distillation("x", v), NOT_NAME
    yield "Distillation: steps", lambda v: Distillation("x", "random", v), NOT_COUNT
    yield "Reencoding: codec", lambda v: Reencoding("x", v), NOT_NAME
    yield "check_theta", masks.check_theta, (*NOT_FRACTION, 1)
    yield "grid_of: patch_size", lambda v: masks.grid_of(8, v), (*NOT_COUNT, 3, 16)
    yield "default_patch_size", masks.default_patch_size, (7, 1)
    yield "to_patches: patch_size", lambda v: masks.to_patches(pixels[:2], v), (*NOT_COUNT, 3, 16)
    yield (
        "keep_mask: importance",
        lambda v: masks.keep_mask(v, 0.25),
        (*(None, "x", 3, np.full((2, 4), NAN), np.ones(4), [["a"]]),),
    )
    yield "keep_mask: theta", lambda v: masks.keep_mask(np.ones((2, 4)), v), (-1, 1, NAN, "x", None, [0.1], [0.1, 2])
    yield "AdaptiveTheta: thetas", lambda v: dqas.AdaptiveTheta(v), ((), (0.5, 0.25), (2,), ("x",), None, 0.25, "x")
    yield "AdaptiveTheta: tolerance", lambda v: dqas.AdaptiveTheta(tolerance=v), (-1, NAN, "1", None, [1])
    yield "AutoencoderRecipe: steps", lambda v: AutoencoderRecipe("x", v), NOT_COUNT
    yield "AutoencoderRecipe: thetas", lambda v: AutoencoderRecipe("x", 1, thetas=v), ((), (0.5,), None, (0.5, 0.1), 3)
    yield "Pool: images", Pool, not_images
    yield "Pool: given", lambda v: Pool(train, given=v), (3, "x", {"features": 3}, {"features": np.ones((2, 2))})
    yield "Pool: labeled", lambda v: Pool(train, labeled=v), NOT_FLAG
    for label_, make, values in (
        ("DQ: n_bins", lambda v: m.DQ(n_bins=v), NOT_COUNT),
        ("DQ: space", lambda v: m.DQ(space=v), NOT_NAME),
        ("Herding: balance", lambda v: m.Herding(balance=v), NOT_NAME),
        ("CCS: hard", lambda v: m.CCS(hard=v), (*NOT_FRACTION, 1)),
        ("CCS: strata", lambda v: m.CCS(strata=v), NOT_COUNT),
        ("CCS: checkpoints", lambda v: m.CCS(checkpoints=v), NOT_COUNT),
        ("Forgetting: checkpoints", lambda v: m.Forgetting(checkpoints=v), NOT_COUNT),
        ("GraNd: networks", lambda v: m.GraNd(networks=v), NOT_COUNT),
        ("EL2N: early", lambda v: m.EL2N(early=v), (*NOT_FRACTION, 0)),
        ("Cal: neighbors", lambda v: m.Cal(neighbors=v), NOT_COUNT),
        ("DeepFool: rivals", lambda v: m.DeepFool(rivals=v), NOT_COUNT),
        ("DeepFool: steps", lambda v: m.DeepFool(steps=v), NOT_COUNT),
        ("DeepFool: overshoot", lambda v: m.DeepFool(overshoot=v), (*NOT_NUMBER, -1)),
        ("Glister: validation", lambda v: m.Glister(validation=v), (*NOT_FRACTION, 0, 1)),
        ("Glister: updates", lambda v: m.Glister(updates=v), NOT_COUNT),
        ("Glister: eta", lambda v: m.Glister(eta=v), (*NOT_NUMBER, 0)),
        ("GradMatch: ridge", lambda v: m.GradMatch(ridge=v), (*NOT_NUMBER, 0)),
        ("GraphCut: lambda_val", lambda v: m.GraphCut(lambda_val=v), (*NOT_NUMBER, 0)),
        ("BGFDQ: neighbors", lambda v: m.BGFDQ(neighbors=v), (0, -1, "3", 1.5, [1], True, NAN)),
        ("BinsRandom: n_bins", lambda v: m.BinsRandom(n_bins=v), NOT_COUNT),
        ("ShuffledCounts: dqas", lambda v: m.ShuffledCounts(dqas=v), (None, "dqas", 3, m.DQAS, m.DQ())),
        ("ADQ: n_bins", lambda v: m.ADQ(n_bins=v), NOT_COUNT),
        ("ADQ: alpha", lambda v: m.ADQ(alpha=v), NOT_FRACTION),
        ("ADQ: steps", lambda v: m.ADQ(steps=v), (*NOT_WHOLE, True)),
        ("DQASPlus: easy", lambda v: m.DQASPlus(easy=v), ("0.1", [0.1], NAN, -0.1, 1, True)),
        ("DQASPlus: inside", lambda v: m.DQASPlus(inside=v), ("herding", 3, m.Herding, m.DQ())),
        ("DQASPlus: checkpoints", lambda v: m.DQASPlus(checkpoints=v), NOT_COUNT),
        ("DQASPlus: scale", lambda v: m.DQASPlus(scale=v), (*NOT_NUMBER, 0, -1)),
        ("DQAS: patchify", lambda v: m.DQAS(patchify=v), NOT_NAME),
        ("DQAS: initialization", lambda v: m.DQAS(initialization=v), (None, 3, "curves", initialization.Curves)),
        ("DQAS: initial_ratio", lambda v: m.DQAS(initial_ratio=v), (*NOT_FRACTION, 0)),
        ("DQAS: bins", lambda v: m.DQAS(bins=v), (0, -1, 1.5, "3", True, [3])),
        ("DQAS: rounds", lambda v: m.DQAS(rounds=v), (3, "x", Rounds, [])),
        ("DQAS: counts", lambda v: m.DQAS(counts=v), (None, 3, "x", counts.EqualCounts)),
        ("DQAS: samples", lambda v: m.DQAS(samples=v), (None, 3, "x", estimators.Kernel, estimators.Retrain())),
        ("DQAS: diversity", lambda v: m.DQAS(diversity=v), (*NOT_NUMBER, -1, INF)),
        ("DQAS: labels", lambda v: m.DQAS(labels=v), (*NOT_NAME, "expected")),
        ("DQAS: validation", lambda v: m.DQAS(validation=v), (*NOT_FRACTION, 0, 1)),
        ("DQAS: shuffle_counts", lambda v: m.DQAS(shuffle_counts=v), (None, *NOT_FLAG)),
        ("DQAS.without", lambda v: m.DQAS().without(v), NOT_NAME),
        ("Rounds: growth", lambda v: Rounds(growth=v), (*NOT_NUMBER, 1, 0.5, INF)),
        ("Rounds: learners", lambda v: Rounds(learners=v), NOT_COUNT),
        ("Rounds: learner_scale", lambda v: Rounds(learner_scale=v), (*NOT_NUMBER, 0, -1)),
        ("Curves: ratios", initialization.Curves, ((), (0.1,), (0.1, 2), ("a", "b"), None, 0.1, "ab", (NAN, 0.1))),
        ("Curves: seeds", lambda v: initialization.Curves(seeds=v), NOT_COUNT),
        ("Curves: shrink", lambda v: initialization.Curves(shrink=v), NOT_FRACTION),
        ("ByError: ratios", initialization.ByError, ((), (2,), ("a",), None, 0.2)),
        ("ErrorCounts: shrink", counts.ErrorCounts, NOT_FRACTION),
        ("GainCounts: estimator", counts.GainCounts, (None, "kernel", 3, estimators.Kernel)),
        ("Kernel: widths", estimators.Kernel, ((), (0,), (-1, 0.1), ("x",), None, 0.1, (NAN,))),
        ("Kernel: best", lambda v: estimators.Kernel(best=v), (*NOT_FRACTION, 0)),
        ("Ridge: chunk", lambda v: estimators.Ridge(chunk=v), NOT_COUNT),
        ("Ridge: repeats", lambda v: estimators.Ridge(repeats=v), NOT_COUNT),
        ("Ridge: penalties", lambda v: estimators.Ridge(penalties=v), ((), (-1,), ("x",), None, 1.0)),
        ("Retrain: delta", lambda v: estimators.Retrain(delta=v), (*NOT_FRACTION, 0)),
        ("METHODS", lambda v: dqas.METHODS[v], NOT_NAME),
        ("register", dqas.register, (None, 3, "x", object())),
    ):
        yield label_, make, values
    yield "fit_curves: sizes", lambda v: fit_curves(v, np.ones((1, 2, 3))), (None, 3, "x", np.ones((2, 3)), np.ones(3))
    yield "fit_curves: errors", lambda v: fit_curves([[1], [2]], v), (None, 3, "x", np.ones(3), np.full((1, 2, 1), NAN))
    divided = lambda v: largest_remainder(v, 10)  # noqa: E731
    yield "largest_remainder: shares", divided, (None, 3, "x", [], [-1, 2], [NAN], ["x"])
    yield "largest_remainder: total", lambda v: largest_remainder([1, 2], v), (-1, None, "3", 1.5, NAN)
    yield "largest_remainder: caps", lambda v: largest_remainder([1, 2], 10, caps=v), ([1, 2], [-1, 20], ["x", "y"])
    yield "power_law_counts: a", lambda v: power_law_counts(v, [1.0], 10), (None, "x", [], [-1], [NAN], [1, 2])
    values = (None, "x", [], [None], ["a"], [[1, 2], [3, 4]], 3, {})
    yield "mean_interval: values", statistics.mean_interval, values
    yield "mean_interval: confidence", lambda v: statistics.mean_interval([1, 2, 3], v), (0, 1, -1, 2, NAN, "0.9", None)
    yield "sample_error: accuracy", lambda v: statistics.sample_error(v, 100), NOT_FRACTION
    yield "sample_error: n_test", lambda v: statistics.sample_error(0.5, v), NOT_COUNT
    yield "summarize: rows", lambda v: statistics.summarize(v, ["method"]), (None, 3, [], {}, pd.DataFrame({"a": [1]}))
    yield "summarize: by", lambda v: statistics.summarize(rows, v), (["nope"], 3, None, [])
    yield "summarize: value", lambda v: statistics.summarize(rows, ["method"], v), ("nope", 3, None, ["x"])
    yield "paired: first", lambda v: statistics.paired(rows, v, "b", over=["seed"]), ("nope", 3, None, ["a"])
    yield "paired: over", lambda v: statistics.paired(rows, "a", "b", over=v), (["nope"], [], None, 3)
    yield "paired: rows", lambda v: statistics.paired(v, "a", "b", over=["seed"]), (None, 3, [], pd.DataFrame())
    yield "paired: value", lambda v: statistics.paired(rows, "a", "b", over=["seed"], value=v), ("nope", 3, None)
    correlated = lambda v: statistics.rank_correlation(v, [1, 2, 3])  # noqa: E731
    yield "rank_correlation: first", correlated, (None, "abc", ["a", "b", "c"], [1, 2], [[1, 2, 3]], 3)
    yield "holm: p", statistics.holm, (None, "x", ["a"], [[0.1]], 3, [2.0], [-0.1])
    yield "Dial: texts", lambda v: Dial("x", v), ((), None, 3, [])
    yield "Dial: start", lambda v: Dial("x", ("a", "b"), v), (2, -1, None, "0", 0.5)
    yield "finish: values", lambda v: run_outputs.finish(v), (None, 3, "x", [1])
    yield "load_profile: name", load_profile, ("nope", "", "../../etc/passwd", "a" * 5000, "\0", None, 3, [])
    profile = folder / "profile.yaml"

    def profiled(text: str) -> object:
        profile.write_text(text)
        return load_profile(str(profile))

    entry = "runs: [{notebook: 00_start_here}]\n"
    yield (
        "load_profile: file",
        profiled,
        (
            *("", "3", "[]", "runs: []", "runs: 3", "runs: [3]", "runs: [{}]", "runs: [{notebook: nope}]", "{", "\t:"),
            *(f"{entry}{line}" for line in ("x: 1", "full: 'no'", "device: tpu", "per_gpu: 0", "per_gpu: .inf")),
            *("runs: [{notebook: 3}]", "runs: [{notebook: ../x}]", "runs: [{notebook: 00_start_here, cores: 0}]"),
            *("runs: [{notebook: 00_start_here, minutes: .nan}]", "runs: [{notebook: 00_start_here, x: 1}]"),
            *(
                "a: &a [1]\nb: *a\nruns: []",
                "!!python/object:os.system {}",
                "runs: [{notebook: 00_start_here, grid: 3}]",
            ),
        ),
    )


def named(message: str, value: Any) -> bool:
    """Whether a message says what was given: the value, one of its parts, its kind or its shape."""
    told = [repr(value)[:60], str(value)[:60], type(value).__name__, getattr(value, "__name__", repr(value))]
    told += ["()"] * isinstance(value, str | int | None)  # the shape of what is no array
    message = message.lower()
    if isinstance(value, np.ndarray | torch.Tensor):
        told += [str(tuple(value.shape)), str(value.dtype), *map(str, np.unique(np.asarray(value))[[0, -1]])]
    if isinstance(value, dqas.ImageSet | dqas.DataSet | pd.DataFrame):
        return True  # its kind or a part of it, in the words of the message
    if isinstance(value, list | tuple | set | dict):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        told += [repr(part)[:60] for part in parts] + [str(np.shape(value))] if len(value) < 20 else ["shape", "("]
    return not told[1] or any(text.lower() in message for text in told) or (":" in str(value)) or len(str(value)) > 60


def examine(rows: Iterator[Row]) -> tuple[int, list[str], list[str], list[str]]:
    """How many misuses there were, and those that ended in an inner error, in nothing, in words that name nothing."""
    total, inner, taken, unnamed = 0, [], [], []
    for what, call, values in rows:
        for value in values:
            total += 1
            said = f"{what} = {str(value)[:60]!r} ({type(value).__name__})"
            try:
                call(value)
            except InputError as error:
                if not named(str(error), value):
                    unnamed.append(f"{said}: {error}")
            except DqasError as error:
                if not str(error):
                    unnamed.append(said)
            except Exception as error:
                inner.append(f"{said}: {type(error).__name__}: {str(error)[:100]}")
            else:
                taken.append(said)
    return total, inner, taken, unnamed
