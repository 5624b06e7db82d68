"""The CPU half of the benchmarks: `make bench`. Real CIFAR-10 from data/ (prepared on first use).

Whatever is compared runs in this file, in one run, on one machine. Nothing here is collected by `make test`.
"""

import importlib
import os

import numpy as np
import pytest
import torch
from measure import in_fresh_process, row, seconds_of, time_text
from plain import naive_graph_cut

from dqas_lib.active.ridge import Ridge
from dqas_lib.active.round import Learners, View
from dqas_lib.bins.graph_cut import greedy_graph_cut
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.training.features import extract, unit_rows
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import in_bfloat16, train

CORES = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())


@pytest.fixture(scope="session")
def cifar10(quick: bool) -> DataSet:
    """All of CIFAR-10; with --quick the embedded digits."""
    return load_images("digits" if quick else "cifar10")


@pytest.fixture(scope="session")
def features(cifar10: DataSet, quick: bool) -> tuple[np.ndarray, np.ndarray]:
    """(N, 512) features and (N,) labels: activations of small_cnn after a short training on CIFAR-10, widened to the
    512 of a ResNet-18 by one fixed random layer with ReLU (a ResNet-18 takes hours on a CPU)."""
    images = cifar10.train
    recipe = Recipe("pool", steps=20 if quick else 200, batch_size=32, lr=0.1, weight_decay=5e-3, warmup=0.1)
    network = train(images, seed=0, setting=Setting(network="small_cnn", recipe=recipe)).network
    narrow = extract(network, images.images)
    narrow /= narrow.std()
    widen = np.random.default_rng(0).normal(size=(narrow.shape[1], 512)).astype(np.float32) / narrow.shape[1] ** 0.5
    return np.maximum(narrow @ widen, 0), images.labels


# ---------------------------------------------------------------------------------------------------- start-up

START = """
import time
started = time.perf_counter(); import torch
middle = time.perf_counter(); import dqas_lib
give(torch=middle - started, library=time.perf_counter() - middle)
"""


def test_start_up(benchmark, leave, quick):
    runs = benchmark.pedantic(lambda: in_fresh_process(START), rounds=1, iterations=1)
    found = [runs, *(in_fresh_process(START) for _ in range(1 if quick else 4))]
    torch, library = (float(np.median([run[name] for run in found])) for name in ("torch", "library"))
    what = f"`import dqas_lib` on top of `import torch` ({time_text(torch)}), median of {len(found)} fresh processes"
    leave(row("Start-up", what, time_text(library), library, at_most=0.3, unit=" s"))


# ---------------------------------------------------------------------------------------------------- bins


def test_bins_against_naive_greedy(benchmark, leave, features, quick):
    z = unit_rows(features[0][features[1] == 0])
    n_picks = 20 if quick else 500
    picks = benchmark.pedantic(lambda: greedy_graph_cut(z, n_picks), rounds=3 if quick else 15, warmup_rounds=1)
    ours = benchmark.stats.stats.median
    seconds, expected = seconds_of(lambda: naive_graph_cut(z, n_picks))
    assert picks.tolist() == expected.tolist()
    what = (
        f"{n_picks} picks of {len(z):,} rows, d = 512: {time_text(ours)} (median of {benchmark.stats.stats.rounds}) "
        f"against {time_text(seconds)} of the naive greedy as in DQ's public code; identical picks"
    )
    ratio = seconds / ours
    leave(row("Bins", what, f"{ratio:.0f} x", ratio, at_least=1 if quick else 200, unit=" x"))


def apricot_picks(z: np.ndarray, n_picks: int) -> np.ndarray:
    apricot = pytest.importorskip("apricot")
    kernel = 0.5 + 0.5 * z.astype(np.float64) @ z.T.astype(np.float64)
    model = apricot.GraphCutSelection(n_picks, metric="precomputed", alpha=1.0, optimizer="naive", n_jobs=1)
    return model.fit(kernel).ranking


def submodlib_picks(z: np.ndarray, n_picks: int) -> np.ndarray:
    submodlib = pytest.importorskip("submodlib")
    kernel = (0.5 + 0.5 * z @ z.T).astype(np.float32)
    function = submodlib.GraphCutFunction(n=len(z), mode="dense", lambdaVal=1.0, ggsijs=kernel, separate_rep=False)
    picks = function.maximize(budget=n_picks, optimizer="LazyGreedy", show_progress=False)
    return np.array([position for position, _ in picks])


def test_bins_against_other_libraries(benchmark, leave, features, quick):
    z = unit_rows(features[0][features[1] == 0])
    n_picks = 20 if quick else 500
    greedy = benchmark.pedantic(lambda: greedy_graph_cut(z, n_picks), rounds=3, warmup_rounds=1)
    ours = benchmark.stats.stats.median
    for name, package, picks in (
        ("apricot-select", "apricot", apricot_picks),
        ("submodlib-py", "submodlib", submodlib_picks),
    ):
        try:
            importlib.import_module(package)
        except ImportError as missing:
            leave(
                row("Bins", f"{name}: could not be imported ({type(missing).__name__})", "not compared", float("nan"))
            )
            continue
        picks(z[:50], 5)  # compiles, where it does
        seconds, found = seconds_of(lambda picks=picks: picks(z, n_picks))
        same = int(np.argmin(np.append(found == greedy, False)))
        shared = len(np.intersect1d(found, greedy))
        what = (
            f"the same picks by {name}, its kernel matrix included: {time_text(seconds)}; "
            f"first {same} picks equal, {shared} of {n_picks} picked by both"
        )
        leave(row("Bins", what, f"{seconds / ours:.0f} x", seconds / ours, at_least=1, unit=" x"))


CIFAR_BINS = """
import time, numpy as np
from dqas_lib.bins.bins import make_bins
from measure import peak_megabytes, reset_peak
reset_peak()
before = peak_megabytes()
with np.load(sys.argv[1], allow_pickle=False) as stored:
    features, labels = stored["features"], stored["labels"]
seconds = []
for _ in range(int(sys.argv[2])):
    started = time.perf_counter()
    make_bins(features, labels, 10)
    seconds.append(time.perf_counter() - started)
give(seconds=min(seconds), peak=peak_megabytes() - before)
"""


def test_bins_of_a_data_set(benchmark, leave, features, tmp_path, quick):
    values, labels = features
    np.savez(tmp_path / "features.npz", features=values, labels=labels)

    def run():
        return in_fresh_process(CIFAR_BINS, str(tmp_path / "features.npz"), "1" if quick else "3")

    found = benchmark.pedantic(run, rounds=1)
    what = (
        f"10 bins of all {len(values):,} images in {len(np.unique(labels))} classes, d = 512, {CORES} cores, best of 3"
    )
    leave(
        row("Bins", what, time_text(found["seconds"]), found["seconds"], at_most=5, unit=" s"),
        row(
            "Bins",
            "peak memory of that process beyond the imports: the features (float32) and the call",
            f"{found['peak']:.0f} MB",
            found["peak"],
            at_most=500,
            unit=" MB",
        ),
    )


GROWTH = """
import time, numpy as np
from dqas_lib.bins.bins import recursive_bins
from dqas_lib.training.features import unit_rows
from measure import peak_megabytes
n, d = int(sys.argv[1]), 128
rng = np.random.default_rng(0)
base = rng.normal(size=(16, d)).astype(np.float32)
features = np.empty((n, d), dtype=np.float32)
for start in range(0, n, 10_000):
    part = features[start : start + 10_000]
    hidden = rng.normal(size=(len(part), 16)).astype(np.float32)
    part[:] = np.maximum(hidden @ base / 4 + 1 + 0.3 * rng.normal(size=part.shape).astype(np.float32), 0)
features = unit_rows(features)
started = time.perf_counter()
recursive_bins(features, 10)
give(seconds=time.perf_counter() - started, peak=peak_megabytes())
"""


def test_bins_of_one_large_class(benchmark, leave, quick):
    sizes = (200, 1000) if quick else (1000, 5000, 20_000, 50_000, 200_000)

    def run():
        return [in_fresh_process(GROWTH, str(n)) for n in sizes]

    found = benchmark.pedantic(run, rounds=1)
    before = None
    for n, result in zip(sizes, found, strict=True):
        what = f"10 bins of one class of {n:,}, d = 128 (rectified, 16 latent dimensions and noise)"
        if before is not None:
            power = np.log(result["seconds"] / before[1]) / np.log(n / before[0])
            what += f"; grows as n^{power:.2f} since the line before"
        before = (n, result["seconds"])
        leave(row("Bins", what, time_text(result["seconds"]), result["seconds"]))
    leave(
        row(
            "Bins",
            f"peak memory of the process with {sizes[-1]:,}",
            f"{found[-1]['peak']:.0f} MB",
            found[-1]["peak"],
            at_most=2000,
            unit=" MB",
        )
    )


# ---------------------------------------------------------------------------------------------------- look-ahead


@pytest.mark.parametrize(("n_classes", "limit"), [(10, 0.25), (200, 10.0)])
def test_ridge_look_ahead_for_all_classes(benchmark, leave, quick, n_classes, limit):
    n_fit, n_validation, n_open = (100, 200, 400) if quick else (1000, 5000, 2000)
    n = n_fit + n_validation + n_open
    selected, validation, candidates = np.split(np.arange(n), [n_fit, n_fit + n_validation])
    features = np.random.default_rng(0).normal(0, 1, (1, n, 512)).astype(np.float32)
    learners = Learners(features, np.zeros((1, n, n_classes), np.float32), (selected,))
    names = tuple(str(label) for label in range(n_classes))
    images = ImageSet(np.zeros((n, 1, 1, 3), np.uint8), np.arange(n) % n_classes, np.arange(n), names, "toy", False)
    view = View(images, selected, candidates, validation, 0, 1, 1, None, made={"cross-fitted": learners})
    estimate = benchmark.pedantic(lambda: Ridge()(view), rounds=3, warmup_rounds=1)
    assert estimate.classes.shape == (n_classes,)
    seconds = benchmark.stats.stats.median
    what = (
        f"ridge: {n_classes} classes and {n_open:,} candidates, d = 512, {n_validation:,} validation images, 1 learner"
    )
    leave(row("Look-ahead", what, time_text(seconds), seconds, at_most=limit, unit=" s"))


# ---------------------------------------------------------------------------------------------------- training

TRAINING = """
import torch
from dqas_lib.data.load import load_images
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train
kind, steps, data = sys.argv[1], int(sys.argv[2]), sys.argv[3]
images = load_images(data, progress=False).train
if kind == "ours":
    recipe = Recipe("pool", steps=steps, batch_size=64, nesterov=True)
    train(images, setting=Setting(recipe=Recipe("warm", steps=10, batch_size=64)), seed=0)
    give(speed=train(images, setting=Setting(recipe=recipe), seed=0).images_per_second)
else:
    from dqas_lib.training.networks import make_network
    from plain import plain_training
    network = make_network("small_cnn", images.n_classes, images.size, 0)
    give(speed=plain_training(images, network, batch_size=64, steps=steps, workers=int(kind)))
"""


def test_training_against_a_plain_loop(benchmark, leave, quick):
    from concurrent.futures import ThreadPoolExecutor

    steps, data = ("12", "digits") if quick else ("250", "cifar10")

    def one(kind: str, threads: int | None = None) -> float:
        return in_fresh_process(TRAINING, kind, steps, data, threads=threads)["speed"]

    def together() -> float:
        with ThreadPoolExecutor(CORES) as pool:
            return sum(pool.map(lambda _: one("ours", 1), range(CORES)))

    alone = benchmark.pedantic(lambda: one("ours"), rounds=1)
    both = together()
    plain = {workers: one(str(workers)) for workers in (0, CORES)}
    workers, best = max(plain.items(), key=lambda item: item[1])
    other = ", ".join(f"{speed:,.0f} with {count} workers" for count, speed in plain.items())
    part = "Training"
    low = in_bfloat16("auto", torch.device("cpu"), 8 if quick else 32)
    products = "bfloat16 (this CPU has instructions for it)" if low else "float32"
    leave(
        row(part, "small_cnn, batch 64 as in recipe cpu, plain DataLoader loop with torchvision transforms, float32 "
            f"({other})",
            f"{best:,.0f} images/s", best),
        row(part, f"the same network and batch by `train`, products in {products}, one training (one thread)",
            f"{alone:,.0f} images/s", alone),
        row(part, f"{CORES} trainings at once by `train`, a process each", f"{both:,.0f} images/s", both),
        row(part, f"one training against the faster plain loop ({workers} workers)", f"{alone / best:.2f} x",
            alone / best),
        row(part, f"{CORES} cores filled against the faster plain loop", f"{both / best:.2f} x", both / best,
            at_least=0.01 if quick else 3, unit=" x"),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- patchify

IMPORTANCE = """
import numpy as np
from dqas_lib.data.load import load_images
from dqas_lib.patches.importance import activation_maps, patch_importance
from dqas_lib.patches.masks import default_patch_size
from dqas_lib.training.features import extract
from dqas_lib.training.networks import make_network
from measure import seconds_of
data, n, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
images = load_images(data, progress=False).train.take(np.arange(n))
network = make_network("small_cnn", images.n_classes, images.size, 0)
def importance():
    maps = activation_maps(network, images.images, images.labels)
    return patch_importance(maps, images.size, default_patch_size(images.size))
importance(), extract(network, images.images)
forward = min(seconds_of(lambda: extract(network, images.images))[0] for _ in range(repeats))
give(forward=forward, importance=min(seconds_of(importance)[0] for _ in range(repeats)))
"""

REOPENING = """
import numpy as np, tempfile
from dataclasses import replace
from pathlib import Path
from dqas_lib.compressed.read import open_compressed
from dqas_lib.compressed.write import save_compressed
from dqas_lib.data.load import load_images
from dqas_lib.patches.autoencoder_training import AUTOENCODERS, train_autoencoder
from dqas_lib.patches.masks import grid_of, keep_mask
from dqas_lib.patches.reconstruct import reconstruct
from measure import seconds_of
images = load_images(sys.argv[1], progress=False).train
share, repeats = float(sys.argv[2]), int(sys.argv[3])
chosen = images.take(np.arange(round(share / 0.75 * len(images))))
recipe = replace(AUTOENCODERS["small"], steps=1)  # of its full size; what it reconstructs takes as long, seen or not
coder = train_autoencoder(chosen, recipe=recipe)[0]
n_patches = grid_of(chosen.size, coder.patch_size) ** 2
kept = keep_mask(np.random.default_rng(0).random((len(chosen), n_patches)), 0.25)
reconstructed = chosen.with_images(reconstruct(coder, chosen.images, kept))
with tempfile.TemporaryDirectory() as folder:
    save_compressed(Path(folder) / "set", reconstructed, kept=kept, autoencoder=coder)
    found = [seconds_of(lambda: open_compressed(Path(folder) / "set")) for _ in range(repeats)]
assert all(opened.reproduced for _, opened in found)
give(seconds=min(seconds for seconds, _ in found), n=len(chosen), bytes=found[0][1].total_bytes)
"""


def test_importance_and_reopening(benchmark, leave, quick):
    data, n, repeats = ("digits", "200", "1") if quick else ("cifar10", "10000", "3")
    importance = benchmark.pedantic(lambda: in_fresh_process(IMPORTANCE, data, n, repeats), rounds=1)
    opened = in_fresh_process(REOPENING, data, "0.1", repeats)
    ratio = importance["importance"] / importance["forward"]
    part = "Patchify"
    what = (
        f"importance (Grad-CAM++) of the patches of {int(n):,} {data} images, small_cnn: "
        f"{time_text(importance['importance'])}, against {time_text(importance['forward'])} of a plain forward pass"
    )
    again = (
        f"reopening a compressed {data} of stored ratio 10 % ({opened['n']:,} images without 25 % of their patches, "
        f"{opened['bytes'] / 1e6:.1f} MB): checked, decoded, reconstructed, best of {repeats}"
    )
    leave(
        row(part, what, f"{ratio:.2f} x", ratio, at_most=30 if quick else 3, unit=" x"),
        row(part, again, time_text(opened["seconds"]), opened["seconds"], at_most=5, unit=" s"),
    )


# ---------------------------------------------------------------------------------------------------- baselines

BASELINE = """
import numpy as np
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods import METHODS
from dqas_lib.pool import Pool
from measure import peak_megabytes, seconds_of
with np.load(sys.argv[2], allow_pickle=False) as stored:
    features, labels = stored["features"], stored["labels"]
names = tuple(str(label) for label in range(int(labels.max()) + 1))
pool = ImageSet(np.zeros((len(labels), 1, 1, 3), np.uint8), labels, np.arange(len(labels)), names, "pool")
pool = Pool(pool, given={"features": features})
method = METHODS[sys.argv[1]](balance=sys.argv[3])
seconds, choice = seconds_of(lambda: method.select(pool, len(labels) // 10))
give(seconds=seconds, peak=peak_megabytes(), picks=len(np.unique(choice.positions)))
"""


def test_baselines_of_a_pool(benchmark, leave, features, tmp_path, quick):
    size = 500 if quick else 10_000
    step = len(features[0]) // size
    stored = tmp_path / "pool.npz"
    np.savez(stored, features=features[0][::step][:size], labels=features[1][::step][:size])
    cases = [(m, b) for m in ("k-center", "herding", "facility-location", "graph-cut") for b in ("equal", "free")]

    def run():
        return [in_fresh_process(BASELINE, method, str(stored), balance) for method, balance in cases]

    found = benchmark.pedantic(run, rounds=1)
    part = f"Baselines: {size // 10:,} of {size:,} images by given features, d = 512, {CORES} cores"
    for (method, balance), result in zip(cases, found, strict=True):
        assert result["picks"] == size // 10
        what = f"{method}, {'class by class' if balance == 'equal' else 'all images as one pool'}"
        peak = f"peak memory of the process, imports included: {what}"
        leave(
            row(part, what, time_text(result["seconds"]), result["seconds"], at_most=20, unit=" s"),
            row(part, peak, f"{result['peak']:.0f} MB", result["peak"], at_most=1000, unit=" MB"),
        )


# ---------------------------------------------------------------------------------------------------- DQAS


def test_dqas_end_to_end(benchmark, leave, quick):
    arguments = ("digits", "300", "0.6") if quick else ("cifar10", "10000", "0.6")
    found = benchmark.pedantic(
        lambda: in_fresh_process("from stages import run\nrun(give, *sys.argv[1:])", *arguments), rounds=1
    )
    part = "DQAS end to end"
    rows = [
        row(
            part, f"{stage['name']} (peak memory {stage['peak']:.0f} MB)", time_text(stage["seconds"]), stage["seconds"]
        )
        for stage in found["stages"]
    ]
    total = sum(stage["seconds"] for stage in found["stages"])
    what = f"all stages: {found['what']}. The paper reports 32.5 h for all of CIFAR-10 on hardware it does not state"
    leave(*rows, row(part, what, time_text(total), total))
