"""DQAS stage by stage, in the order in which `quantize(..., patchify="first")` calls them, each timed alone."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure import peak_megabytes, reset_peak

from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.methods.dqas import DQAS
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.autoencoder_training import get_recipe as get_coder
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.training.recipes import Recipe, get_recipe
from dqas_lib.training.setting import Setting


def pool_of(images: ImageSet, n: int) -> ImageSet:
    """About n images, equally many of each class, drawn by seed 0."""
    rng, each = np.random.default_rng(0), n // images.n_classes
    chosen = [rng.permutation(np.flatnonzero(images.labels == label))[:each] for label in range(images.n_classes)]
    return images.take(np.sort(np.concatenate(chosen)))


def run(
    give: Callable[..., None],
    data: str,
    size: str,
    ratio: str,
    network: str = "small_cnn",
    recipe: str | Recipe = "quick",
    autoencoder: str | AutoencoderRecipe = "quick",
    device: str = "cpu",
) -> None:
    """Time every stage and `give` a list of name, seconds, peak memory (MB, of the process; on CUDA of the device)."""
    images = load_images(data, progress=False).train
    if int(size) < len(images):
        images = pool_of(images, int(size))
    stages = []

    def stage(name: str, work: Callable[[], object]) -> object:
        reset_peak()
        if device != "cpu":
            import torch

            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        result = work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        peak = peak_megabytes() if device == "cpu" else torch.cuda.max_memory_allocated() / 1e6
        stages.append({"name": name, "seconds": seconds, "peak": peak})
        return result

    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(
            images,
            setting=Setting(network=network, recipe=recipe, device=device, store=Store(Path(folder))),
        )
        patchifier = Patchifier(pool, Patchify(0.25, autoencoder=autoencoder))
        stage("importance network: training, features and logits", lambda: pool.reference)
        stage("importance of the patches", lambda: patchifier.importance)
        stage(f"autoencoder (recipe {get_coder(autoencoder).name!r}): training", lambda: patchifier.coder)
        reduced = stage("drop 25 % of the patches and reconstruct", patchifier.apply)
        pool = replace(pool, images=reduced.images, source=pool)
        stage("features of the reconstructed images", lambda: pool.features)
        stage("bins", lambda: pool.bins(10))
        budget = round(float(ratio) * len(images))
        method = DQAS()
        n_rounds = len(method.rounds.targets(method.initial_ratio, len(images), budget)) - 1
        what = f"class-wise initialization and {n_rounds} active rounds of {method.rounds.learners} learners"
        choice = stage(what, lambda: method.select(pool, budget))
    if len(np.unique(choice.positions)) != budget:
        raise RuntimeError(f"DQAS gave {len(np.unique(choice.positions))} images instead of {budget}")
    what = f"{budget:,} of {len(images):,} {data} images (ratio {ratio}), network {network}"
    what += f", recipe {get_recipe(recipe).name!r}, {device}"
    give(stages=stages, what=what)
