"""The large half of the benchmarks, `make bench-large`: a folder of photographs, and a set larger than memory.

It makes its images itself, in build/large (24 GB, of which 16 are one file), and leaves them there for the next time.
Memory is what belongs to the processes alone: pages of a mapped file are the system's, which takes them back.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measure import REPOSITORY, Row, earlier, in_fresh_process, processor, row, save, time_text
from PIL import Image
from report import write

WHERE = REPOSITORY / "build" / "large"
PHOTOS, SIDE, CLASSES = 100_000, 500, 20
MILLION, PER_CLASS, WIDTH, TEST = 1_280_000, 1_280, 128, 1_000
FOLDER = "A folder of photographs"
CHUNK = 1_000  # images made at a time


def fields(rng: np.random.Generator, n: int, side: int, cells: int) -> np.ndarray:
    """(n, side, side, 3) uint8: smooth random colors, as of pictures out of focus."""
    coarse = rng.integers(0, 256, size=(n, cells, cells, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse])


def write_photos(folder: Path, first: int, last: int) -> None:
    """Photographs `first` to `last` (not included): smooth shapes and grain, JPEG, quality 88, about 75 kB each."""
    rng = np.random.default_rng(first)
    grain = rng.normal(0, 7, size=(2 * SIDE, 2 * SIDE, 1)).astype(np.float32)
    for number in range(first, last):
        x, y = rng.integers(0, SIDE, size=2)
        picture = fields(rng, 1, SIDE, int(rng.integers(4, 24)))[0] + grain[y : y + SIDE, x : x + SIDE]
        target = folder / f"class {number % CLASSES:02}" / f"{number:06}.jpg"
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(target, quality=88)


def photos(n: int) -> Path:
    """The folder of photographs, made when it is not there."""
    folder = WHERE / f"photos-{n}"
    if not folder.is_dir():
        half = folder.with_name(folder.name + ".half")
        shutil.rmtree(half, ignore_errors=True)
        for label in range(CLASSES):
            (half / f"class {label:02}").mkdir(parents=True)
        starts = range(0, n, CHUNK)
        with ProcessPoolExecutor() as workers:
            ends = [min(n, start + CHUNK) for start in starts]
            for done, _ in enumerate(workers.map(write_photos, [half] * len(starts), starts, ends), 1):
                print(f"{min(n, done * CHUNK):,} of {n:,} photographs", end="\r", file=sys.stderr)
        half.rename(folder)
    return folder


def million(n: int) -> Path:
    """A prepared set of n images of 64 px, PER_CLASS of each class, and features; made when it is not there.

    An image is its class's colors, mixed with colors of its own; its features are those of its class and as much of
    its own. Random, but a network can learn some of it, and easy and hard images differ.
    """
    folder = WHERE / f"images-{n}"
    if not folder.is_dir():
        half, rng, n_classes = folder.with_name(folder.name + ".half"), np.random.default_rng(0), n // PER_CLASS
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        shapes, centers = fields(rng, n_classes, 64, 4), rng.normal(size=(n_classes, WIDTH)).astype(np.float32)
        own = fields(rng, 4_096, 64, 8)

        def draw(labels: np.ndarray) -> np.ndarray:
            share = rng.integers(50, 200, size=(len(labels), 1, 1, 1), dtype=np.uint16)
            mixed = shapes[labels] * share + own[rng.integers(len(own), size=len(labels))] * (255 - share)
            return (mixed >> 8).astype(np.uint8)

        for part, size in (("train", n), ("test", min(n, TEST))):
            labels = np.arange(size) % n_classes
            images = np.lib.format.open_memmap(half / f"{part}_images.npy", "w+", np.uint8, (size, 64, 64, 3))
            for start in range(0, size, CHUNK):
                images[start : start + CHUNK] = draw(labels[start : start + CHUNK])
                print(f"{start:,} of {size:,} images", end="\r", file=sys.stderr)
            images.flush()
            np.save(half / f"{part}_labels.npy", labels)
        np.save(half / "class_names.npy", np.array([f"class {label:04}" for label in range(n_classes)]))
        features = centers[np.arange(n) % n_classes] + rng.normal(size=(n, WIDTH)).astype(np.float32)
        np.save(half / "features.npy", np.maximum(features, 0, out=features))
        half.rename(folder)
    return folder


class Memory(threading.Thread):
    """Samples what belongs to this process and its children alone, in bytes, and keeps the largest."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.done = 0, threading.Event()

    @staticmethod
    def now() -> int:
        """Private and shared anonymous pages (Linux); elsewhere all that is resident."""
        total, me = 0, psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                pages = [line.split() for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem"))]
                total += sum(int(line[1]) * 1024 for line in pages)
            except (OSError, ValueError, psutil.Error):
                total += process.memory_info().rss if process.is_running() and sys.platform != "linux" else 0
        return total

    def run(self) -> None:
        while not self.done.wait(0.1):
            self.peak = max(self.peak, self.now())


@contextmanager
def measured(found: list[dict[str, Any]], name: str) -> Iterator[None]:
    """Adds to `found`: the stage's name, wall seconds, peak memory in MB beyond what was held at its beginning."""
    sampler, before, started = Memory(), Memory.now(), time.perf_counter()
    sampler.start()
    try:
        yield
    finally:
        seconds = time.perf_counter() - started
        sampler.done.set()
        sampler.join()
        peak, held = max(sampler.peak, Memory.now()) / 1e6, before / 1e6
        found.append({"name": name, "seconds": seconds, "peak": peak, "before": held})


def choose_photos(give: Callable[..., None], folder: str, out: str) -> None:
    """Compress a folder; method random, as what is measured is reading, comparing and writing."""
    from dqas_lib.compress import compress_folder
    from dqas_lib.core.store import Store
    from dqas_lib.training.setting import Setting

    found: list[dict[str, Any]] = []
    with measured(found, "all"):
        setting = Setting(store=Store(Path(out) / "store"))
        done = compress_folder(folder, Path(out) / "chosen", 0.1, method="random", setting=setting)
    give(
        stages=found,
        parts=done.seconds,
        kept=len(done.kept),
        total=len(done.kept) + len(done.dropped),
        bytes=done.bytes,
    )


def choose_million(give: Callable[..., None], folder: str, method: str, steps: str, checkpoints: str) -> None:
    """Select a tenth of a mapped set by "dq" from given features, or by "dqas-plus" with a recipe of so many steps."""
    from dqas_lib.core.store import Store
    from dqas_lib.data.load import load_images
    from dqas_lib.methods import DQ, DQASPlus
    from dqas_lib.pool import Pool
    from dqas_lib.training.recipes import Recipe
    from dqas_lib.training.setting import Setting

    found: list[dict[str, Any]] = []
    with measured(found, "opening and checking the set"):
        images = load_images(folder).train
    budget = round(0.1 * len(images))
    if method == "dq":
        with measured(found, f"reading features ({WIDTH} each)"):
            pool = Pool(images, given={"features": np.load(Path(folder) / "features.npy")})
        with measured(found, "bins, and a draw from them"):
            choice = DQ().select(pool, budget)
        what = "by given features"
    else:
        plus = DQASPlus(checkpoints=int(checkpoints))
        recipe = Recipe("short", steps=2 * int(steps), lr=0.2, nesterov=True, warmup=0.2, sides=((0.625, 0.6),))
        with tempfile.TemporaryDirectory(dir=Path(folder).parent) as kept:
            pool = Pool(images, setting=Setting("resnet9", recipe, store=Store(Path(kept))))
            with measured(found, "fingerprint of the images"):
                images.fingerprint()
            with measured(found, f"training of {steps} steps of 128, and {checkpoints} looks at all the images"):
                pool.dynamics(scale=plus.scale, checkpoints=plus.checkpoints, small=True)
            with measured(found, "window, and herding inside"):
                choice = plus.select(pool, budget)
        what = f"resnet9, {steps} steps, {checkpoints} checkpoints"
    if len(np.unique(choice.positions)) != budget:
        raise RuntimeError(f"{method} gave {len(np.unique(choice.positions))} images instead of {budget}")
    give(stages=found, what=what, size=images.images.nbytes, n=len(images), classes=images.n_classes)


def bench_photos(leave: Callable[[Row], None], n: int) -> None:
    """Rows for the folder of photographs."""
    folder, part = photos(n), FOLDER
    with tempfile.TemporaryDirectory(dir=WHERE) as out:
        found = in_fresh_process(
            "from bench_large import choose_photos; choose_photos(give, *sys.argv[1:])", str(folder), out
        )
    (stage,) = found["stages"]
    parts = ", ".join(f"{name} {time_text(seconds)}" for name, seconds in found["parts"].items())
    kept, total, size = found["kept"], found["total"], found["bytes"][0] / 1e9
    what = f"{kept:,} of {total:,} JPEG of {SIDE} px ({size:.2f} GB) into a folder, method random: {parts}"
    leave(row(part, what, time_text(stage["seconds"]), stage["seconds"], at_most=600, unit=" s"))
    beyond = stage["peak"] - stage["before"]
    leave(row(part, "memory beyond the imports, all processes", f"{beyond:.0f} MB", beyond, at_most=2000, unit=" MB"))


def bench_million(leave: Callable[[Row], None], n: int, steps: int, checkpoints: int) -> None:
    """Rows for the set larger than memory."""
    folder = million(n)
    for method in ("dq", "dqas-plus"):
        found = in_fresh_process(
            "from bench_large import choose_million; choose_million(give, *sys.argv[1:])",
            *(str(folder), method, str(steps), str(checkpoints)),
        )
        size = f"{found['n']:,} images of 64 px in {found['classes']:,} classes ({found['size'] / 1e9:.1f} GB, mapped)"
        part, peak = f"{method} of {size}", max(stage["peak"] for stage in found["stages"])
        for stage in found["stages"]:
            what = f"{stage['name']} (memory {stage['peak'] / 1e3:.2f} GB)"
            leave(row(part, what, time_text(stage["seconds"]), stage["seconds"]))
        total = sum(stage["seconds"] for stage in found["stages"])
        leave(row(part, f"all of it, a tenth chosen, {found['what']}", time_text(total), total))
        leave(row(part, "memory, imports included", f"{peak / 1e3:.2f} GB", peak / 1e3, at_most=8, unit=" GB"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=("photos", "million"), default=["photos", "million"])
    parser.add_argument("--tiny", action="store_true", help="a 500th of the sizes: a check, not a measurement")
    parser.add_argument("--reports", type=Path, default=REPOSITORY / "reports")
    options = parser.parse_args(arguments)
    started, machine, rows, share = time.perf_counter(), processor(), [], 500 if options.tiny else 1
    folder = options.reports
    if options.tiny and folder.resolve() == (REPOSITORY / "reports").resolve():
        folder = Path(tempfile.mkdtemp())

    def leave(entry: Row) -> None:
        print(f"{entry.part}: {entry.what}: {entry.measured} {entry.wanted}", flush=True)
        rows.append(entry)

    if "photos" in options.parts:
        bench_photos(leave, PHOTOS // share)
    if "million" in options.parts:
        bench_million(leave, MILLION // share, 4 if options.tiny else 200, 2)
    given = " ".join(["--tiny"] * options.tiny + ["--parts", *options.parts] * (len(options.parts) < 2))
    command = "make bench-large" + (f" ARGS='{given}'" if given else "")  # wherever the report goes
    target = folder / "benchmarks" / "large.json"
    rows += earlier(target, machine.split(", load")[0], {entry.part for entry in rows})
    rows.sort(key=lambda entry: entry.part != FOLDER)
    save(target, rows, command=command, machine=machine, seconds=time.perf_counter() - started)
    print(f"wrote {write(folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
