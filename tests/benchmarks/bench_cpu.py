"""The CPU half of the benchmarks: `make bench`. Real CIFAR-10 from data/ (prepared on first use).

Whatever is compared runs in this file, in one run, on one machine. Nothing here is collected by `make test`.
"""

import importlib
import os

import numpy as np
import pytest
from measure import in_fresh_process, row, seconds_of, time_text
from plain import naive_graph_cut

from dqas_lib.bins import greedy_graph_cut
from dqas_lib.features import unit_rows
from dqas_lib.images import DataSet, load_images
from dqas_lib.training import Recipe, extract, train

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
    recipe = Recipe("bench", steps=20 if quick else 200, batch_size=32, lr=0.1, weight_decay=5e-3, warmup=0.1)
    network = train(images, network="small_cnn", recipe=recipe, seed=0).network
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
from dqas_lib.bins import make_bins
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
from dqas_lib.bins import recursive_bins
from dqas_lib.features import unit_rows
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


# ---------------------------------------------------------------------------------------------------- training

TRAINING = """
import torch
from dqas_lib.images import load_images
from dqas_lib.training import Recipe, train
kind, steps, data = sys.argv[1], int(sys.argv[2]), sys.argv[3]
images = load_images(data, progress=False).train
if kind == "ours":
    recipe = Recipe("bench", steps=steps, batch_size=64, nesterov=True)
    train(images, network="small_cnn", recipe=Recipe("warm", steps=10, batch_size=64), seed=0)
    give(speed=train(images, network="small_cnn", recipe=recipe, seed=0).images_per_second)
else:
    from dqas_lib.networks import make_network
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
    leave(
        row(part, f"small_cnn, batch 64 as in recipe cpu, plain DataLoader loop with torchvision transforms ({other})",
            f"{best:,.0f} images/s", best),
        row(part, "the same network and batch by `train`, one training (one thread)", f"{alone:,.0f} images/s", alone),
        row(part, f"{CORES} trainings at once by `train`, a process each", f"{both:,.0f} images/s", both),
        row(part, f"one training against the faster plain loop ({workers} workers)", f"{alone / best:.2f} x",
            alone / best),
        row(part, f"{CORES} cores filled against the faster plain loop", f"{both / best:.2f} x", both / best,
            at_least=0.01 if quick else 3, unit=" x"),
    )  # fmt: skip


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
