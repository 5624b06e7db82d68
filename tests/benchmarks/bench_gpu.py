"""The GPU half of the benchmarks: `make bench-gpu`, one command on a machine with a CUDA device.

Writes reports/benchmarks/gpu.json and reports/benchmarks.md, and prints the same rows. `--tiny --device cpu` runs every
line at tiny sizes without a GPU (a test does); figures of such a run are worth nothing and go to --reports only.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import REPOSITORY, Row, earlier, processor, row, save, seconds_of, time_text
from report import write
from torch import nn
from torch.nn import functional
from torch.optim.sgd import sgd

from dqas_lib.bins.bins import make_bins
from dqas_lib.bins.graph_cut import TIE
from dqas_lib.bins.on_gpu import recursive_bins_on_device
from dqas_lib.core.devices import check_device
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.patches.autoencoder_training import AUTOENCODERS, train_autoencoder
from dqas_lib.patches.importance import activation_maps, patch_importance
from dqas_lib.patches.masks import keep_mask
from dqas_lib.patches.reconstruct import reconstruct
from dqas_lib.training.networks import make_network
from dqas_lib.training.recipes import Recipe, scaled
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

PEAK = 790e12  # dense bf16 floating-point operations a second of one H200; shares are of this, whatever the card
TRAINING_COST = (
    3.333e9  # operations of ResNet-18 with a 3x3 stem on a 32 px image: forward 0.5555 G multiply-adds, x 2 x 3
)


class Bench:
    """A run: where, how large, and the rows so far, which are saved one by one: a run that is cut off goes on."""

    def __init__(self, device: torch.device, tiny: bool, rows=(), keep=lambda rows: None) -> None:
        self.device, self.tiny, self.rows, self.keep = device, tiny, list(rows), keep

    def leave(self, *rows: Row) -> None:
        for entry in rows:
            print(f"{entry.part}: {entry.what}: {entry.measured} {entry.wanted}", flush=True)
        self.rows.extend(rows)
        self.keep(self.rows)

    def has(self, part: str, what: str) -> bool:
        """Whether a row of this beginning was left before."""
        return any(entry.part == part and entry.what.startswith(what) for entry in self.rows)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work, *, repeats: int = 3) -> tuple[float, object]:
        """Seconds of the fastest of some calls after a first one (its compilation and allocation are not counted)."""
        result = work()
        self.wait()
        found = []
        for _ in range(1 if self.tiny else repeats):
            found.append(seconds_of(lambda: (work(), self.wait()))[0])
        return min(found), result

    def judged(self, part: str, what: str, seconds: float, at_most: float) -> None:
        self.leave(row(part, what, time_text(seconds), seconds, at_most=at_most, unit=" s"))


# ---------------------------------------------------------------------------------------------------- bins


def class_features(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) float32 rectified activations with 16 latent dimensions and noise, as in the CPU half."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).normal(size=(16, d)).astype(np.float32)
    hidden = rng.normal(size=(n, 16)).astype(np.float32) @ base / 4
    return np.maximum(hidden + 1 + 0.3 * rng.normal(size=(n, d)).astype(np.float32), 0)


def bench_bins(pool: Bench) -> None:
    sets = [("CIFAR-10's size", 10, 5000, 512, 0.2), ("Tiny ImageNet's size", 200, 500, 512, 0.2)]
    large = (200_000, 128)
    if pool.tiny:
        sets, large = [("tiny", 3, 60, 16, 60.0)], (300, 8)
    for name, n_classes, n, d, limit in sets:
        what = f"10 bins of {n_classes} x {n:,}, d = {d} ({name}), features on the device"
        if pool.has("Bins", what):
            continue
        features = np.concatenate([class_features(n, d, label) for label in range(n_classes)])
        labels = np.repeat(np.arange(n_classes), n)
        there = torch.from_numpy(features).to(pool.device)

        def cut(there=there, labels=labels):
            return recursive_bins_on_device(there, labels, 10, lambda_val=1.0, tie=TIE, device=pool.device)

        seconds, (numbers, ranks) = pool.seconds(cut)
        on_cpu, expected = seconds_of(lambda f=features, labels=labels: make_bins(f, labels, 10))
        same = float(np.mean((numbers == expected.bin) & (ranks == expected.rank)))
        pool.judged("Bins", what, seconds, limit)
        part = f"images of it with the bin and rank that the CPU gives (which took {time_text(on_cpu)})"
        pool.leave(row("Bins", part, f"{100 * same:.2f} %", 100 * same, at_least=100, unit=" %"))
    n, d = large
    if pool.has("Bins", "10 bins of one class"):
        return
    features = torch.from_numpy(class_features(n, d, 0)).to(pool.device)

    def cut_large():
        return recursive_bins_on_device(
            features, np.zeros(n, dtype=np.int64), 10, lambda_val=1.0, tie=TIE, device=pool.device, kernel_bytes=0
        )

    seconds, _ = seconds_of(lambda: (cut_large(), pool.wait()))
    pool.judged("Bins", f"10 bins of one class of {n:,}, d = {d}, no n x n matrix", seconds, 10)


# ---------------------------------------------------------------------------------------------------- training


class Step:
    """One training step of ResNet-18 on images of fixed shape that lie on the device, bf16, channels_last."""

    def __init__(self, pool: Bench, batch: int, *, padded: bool, seed: int = 0) -> None:
        self.device = pool.device
        name, size = ("small_cnn", 8) if pool.tiny else ("resnet18", 32)
        self.model = make_network(name, 10, size, seed).to(pool.device).train()
        if padded:
            pad_stem(self.model)
        self.parameters = list(self.model.parameters())
        self.velocity: list[torch.Tensor | None] = [None] * len(self.parameters)
        generator = torch.Generator().manual_seed(seed)
        self.x = torch.randint(256, (batch, size, size, 3), generator=generator, dtype=torch.uint8).to(pool.device)
        self.y = torch.randint(10, (batch,), generator=generator).to(pool.device)
        self.forward = self.model

    def __call__(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            output = self.forward(self.x)
        loss = functional.cross_entropy(output.float(), self.y)
        loss.backward()
        gradients = [parameter.grad for parameter in self.parameters]
        options = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "dampening": 0.0}
        with torch.no_grad():  # torch's function: to make a torch.optim.SGD imports the compiler, for seconds
            sgd(self.parameters, gradients, self.velocity, foreach=True, nesterov=False, maximize=False, **options)
            torch._foreach_zero_(gradients)


class PadChannels(nn.Module):
    """Zeros behind the channels, up to `channels` of them: tensor cores read 8 at a time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x):
        padded = functional.pad(x.permute(0, 2, 3, 1), (0, self.channels - x.shape[1]))
        return padded.permute(0, 3, 1, 2)


def pad_stem(model: nn.Module) -> None:
    """Let the first convolution take 8 channels, 5 of them zeros: the same function of the images."""
    old = model.stages[0]
    new = nn.Conv2d(8, old.out_channels, 3, padding=1, bias=False).to(old.weight.device)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :3] = old.weight
    model.stages[0] = nn.Sequential(PadChannels(8), new.to(memory_format=torch.channels_last))


def captured(step: Step):
    """The step as one CUDA graph, to be replayed."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def prepared(step: Step, how: str):
    """The step made ready: "eager", "compiled", "CUDA graph", or "compiled, CUDA graph"."""
    if "compiled" in how:
        step.forward = torch.compile(step.model)
    return captured(step) if "CUDA graph" in how else step


def bench_training(pool: Bench) -> None:
    ways = ["eager", "compiled", "CUDA graph", "compiled, CUDA graph"] if pool.device.type == "cuda" else ["eager"]
    batches = (4,) if pool.tiny else (128, 256, 16, 512, 1024)  # what recipes use comes first
    network = "small_cnn" if pool.tiny else "ResNet-18"
    for batch in batches:
        for padded in (False, True):
            for how in ways:
                stem = "stem padded to 8 channels" if padded else "stem of 3 channels"
                what = f"{network}, batch {batch}, {stem}, {how}"
                if pool.has("Training", what):
                    continue
                if "compiled" in how:
                    torch._dynamo.reset()
                cold, step = seconds_of(lambda b=batch, p=padded, h=how: prepared(Step(pool, b, padded=p), h))
                first, _ = seconds_of(lambda step=step: (step(), pool.wait()))
                times = 2 if pool.tiny else max(20, 20_000 // batch)

                def many(step=step, times=times):
                    for _ in range(times):
                        step()

                seconds, _ = pool.seconds(many, repeats=2)
                speed = times * batch / seconds
                share = speed * TRAINING_COST / PEAK
                cold_text = f"; cold start {time_text(cold + first)}"
                shown = f"{speed:,.0f} images/s" + ("" if pool.tiny else f", {100 * share:.1f} % of peak") + cold_text
                pool.leave(row("Training", what, shown, speed))
                del step
    if not pool.tiny and not pool.has("Training", "share of"):
        best = max((entry for entry in pool.rows if entry.what.startswith(network)), key=lambda entry: entry.value)
        share = 100 * best.value * TRAINING_COST / PEAK
        what = f"share of {PEAK / 1e12:.0f} TFLOP/s by the fastest: {best.what}"
        pool.leave(row("Training", what, f"{share:.1f} %", share, at_least=25, unit=" % (aim 40 %)"))
    bench_together(pool)


def bench_together(pool: Bench) -> None:
    """k small trainings at once, a CUDA stream each, against one: what a GPU that one cannot fill still has."""
    batch, times = (4, 2) if pool.tiny else (16, 300)
    if pool.has("Training", f"{2 if pool.tiny else 8} at once"):
        return
    alone = 0.0
    for k in (1, 2) if pool.tiny else (1, 2, 4, 8):
        steps = [Step(pool, batch, padded=True, seed=seed) for seed in range(k)]
        if pool.device.type == "cuda":
            replays = [captured(step) for step in steps]
            streams = [torch.cuda.Stream() for _ in steps]

            def many(replays=replays, streams=streams):
                for _ in range(times):
                    for replay, stream in zip(replays, streams, strict=True):
                        with torch.cuda.stream(stream):
                            replay()
        else:

            def many(steps=steps):
                for _ in range(times):
                    for step in steps:
                        step()

        seconds, _ = pool.seconds(many, repeats=2)
        speed = k * times * batch / seconds
        alone = alone or speed
        way = "a CUDA graph and stream each" if pool.device.type == "cuda" else "in turn"
        what = f"{k} at once, batch {batch}, {way}"
        pool.leave(row("Training", what, f"{speed:,.0f} images/s together, {speed / alone:.2f} x one", speed))


def bench_recipe(pool: Bench, images: ImageSet) -> None:
    """`train` as users call it."""
    network, batch, steps = ("small_cnn", 4, 3) if pool.tiny else ("resnet18", 256, 400)
    if pool.has("Training", "`train` as it stands"):
        return
    recipe = Recipe("pool", steps=steps, batch_size=batch)
    for _ in range(2):
        found = train(images, seed=0, setting=Setting(network=network, recipe=recipe, device=str(pool.device)))
    shown = f"{found.images_per_second:,.0f} images/s"
    if not pool.tiny:
        shown += f", {100 * found.images_per_second * TRAINING_COST / PEAK:.1f} % of peak"
    pool.leave(
        row("Training", f"`train` as it stands, augmentation included, {network}, batch {batch}", shown,
            found.images_per_second)
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- patchify


def bench_patchify(pool: Bench, images: ImageSet) -> None:
    if pool.has("Patchify", "one image at a time"):
        return
    network_name = "small_cnn" if pool.tiny else "resnet18"
    network = make_network(network_name, images.n_classes, images.size, 0)
    network.normalize_by(images)
    network = network.to(pool.device).eval()
    recipe = replace(AUTOENCODERS["quick"], steps=20) if pool.tiny else "quick"
    coder = train_autoencoder(images, recipe=recipe, seed=0, device=str(pool.device))[0]
    patch_size = coder.patch_size

    def patchified(part: ImageSet, batch_size: int) -> np.ndarray:
        maps = activation_maps(network, part.images, part.labels, device=str(pool.device), batch_size=batch_size)
        kept = keep_mask(patch_importance(maps, part.size, patch_size), 0.25)
        return reconstruct(coder, part.images, kept, device=str(pool.device), batch_size=batch_size)

    seconds, _ = pool.seconds(lambda: patchified(images, 4096), repeats=2)
    what = f"importance ({network_name}), drop of 25 % and reconstruction of {len(images):,} images, small autoencoder"
    pool.judged("Patchify", what, seconds, 120 if pool.tiny else 5)
    some = images.take(np.arange(min(len(images), 20 if pool.tiny else 500)))

    def one_by_one() -> None:
        for index in range(len(some)):
            patchified(some.take(np.array([index])), 1)

    loop, _ = seconds_of(lambda: (one_by_one(), pool.wait()))
    ratio = loop / len(some) / (seconds / len(images))
    what = f"one image at a time as in the public code, {len(some)} images: {time_text(loop)}; in time an image"
    pool.leave(row("Patchify", what, f"{ratio:.0f} x", ratio))


# ---------------------------------------------------------------------------------------------------- all of it


def bench_dqas(pool: Bench) -> None:
    from stages import run

    if pool.has("DQAS end to end", "all stages"):
        return
    pool.rows[:] = [entry for entry in pool.rows if entry.part != "DQAS end to end"]
    found = {}
    if pool.tiny:
        short, coder = scaled("quick", 0.1), replace(AUTOENCODERS["quick"], name="tiny", steps=20)
        run(found.update, "digits", "200", "0.6", recipe=short, autoencoder=coder, device=str(pool.device))
    else:
        arguments = {"network": "resnet18", "recipe": "fast", "autoencoder": "small", "device": str(pool.device)}
        run(found.update, "cifar10", "50000", "0.6", **arguments)
    for stage in found["stages"]:
        what = f"{stage['name']} (peak memory {stage['peak']:.0f} MB)"
        pool.leave(row("DQAS end to end", what, time_text(stage["seconds"]), stage["seconds"]))
    total = sum(stage["seconds"] for stage in found["stages"])
    what = f"all stages: {found['what']}. The paper reports 32.5 h, on hardware it does not state"
    pool.judged("DQAS end to end", what, total, 300)


PARTS = {"bins": "Bins", "training": "Training", "patchify": "Patchify", "dqas": "DQAS end to end"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, digits, small_cnn: a check, not a measurement")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), help="the others keep what this card gave last time"
    )
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "reports")
    options = parser.parse_args(arguments)
    try:
        device = check_device(options.device)
    except InputError:
        print("make bench-gpu needs a CUDA device, and PyTorch sees none on this machine.", file=sys.stderr)
        return 2
    if device.type != "cuda" and not options.tiny:
        print("without a CUDA device only --tiny can be run.", file=sys.stderr)
        return 2
    started = time.perf_counter()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU (a dry run)"
    driver = f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if device.type == "cuda" else ""
    machine = f"{card}{driver}; host: {processor()}"
    print(machine, flush=True)
    given = sys.argv[1:] if arguments is None else arguments
    command = "make bench-gpu" + (f" ARGS='{' '.join(given)}'" if given else "")
    folder = options.reports
    if options.tiny and folder.resolve() == (REPOSITORY / "reports").resolve():
        folder = Path(tempfile.mkdtemp())
    order, final = list(PARTS.values()), folder / "benchmarks" / "gpu.json"
    unfinished = final.with_name("gpu-unfinished.json")

    def keep(rows: list[Row], path: Path = unfinished) -> None:
        rows = sorted(rows, key=lambda entry: order.index(entry.part))
        save(path, rows, command=command, machine=machine, seconds=time.perf_counter() - started)

    pool = Bench(device, options.tiny, earlier(unfinished, card, set()), keep)

    def images() -> ImageSet:  # loaded when the first part asks for them
        found = load_images("digits" if options.tiny else "cifar10").train
        return found.take(np.arange(60)) if options.tiny else found

    work = {
        "bins": lambda: bench_bins(pool),
        "training": lambda: (bench_recipe(pool, images()), bench_training(pool)),
        "patchify": lambda: bench_patchify(pool, images()),
        "dqas": lambda: bench_dqas(pool),
    }
    for name in options.parts:
        work[name]()
    measured_now = {entry.part for entry in pool.rows}
    keep(pool.rows + earlier(final, card, measured_now), final)
    unfinished.unlink(missing_ok=True)
    print(f"wrote {write(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
