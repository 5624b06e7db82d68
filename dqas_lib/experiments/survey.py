"""Survey: every method at one ratio -> tidy rows, with distillation and re-encoding beside the selections.

`experiments.compare` does the selections. What is not a selection is trained on in the same way and with the same
seeds: images distilled by distribution matching (as many a class as the budget gives), and all images as JPEG or WebP
at the bytes the selected images take as PNG.
"""

import io
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from dqas_lib.core.checks import check_ratio
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import derive
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.experiments.compare import FULL, compare
from dqas_lib.experiments.distillation import DISTILLED, _per_class, distilled
from dqas_lib.experiments.recompression import CODECS, recompress
from dqas_lib.experiments.statistics import mean_interval, paired
from dqas_lib.methods import METHODS
from dqas_lib.methods.base import Method
from dqas_lib.methods.dq import DQ
from dqas_lib.quantize import quantize
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

MEASURES = ("accuracy", "macro_accuracy")  # columns of the rows; the second is the mean over the classes


def all_methods() -> dict[str, str | Method]:
    """Label -> method: every registered one, DQ as published (in gradient space), and training on all images."""
    return {FULL: FULL, **{name: name for name in METHODS}, "dq, gradients": DQ(space="gradients")}


def survey(
    data: DataSet,
    ratio: float,
    seeds: Sequence[int],
    *,
    methods: Mapping[str, str | Method] | None = None,
    others: Sequence[str] = (*DISTILLED, *CODECS),
    setting: Setting | None = None,
    workers: int | None = None,
    measure: str = "accuracy",
) -> pd.DataFrame:
    """Every method at one ratio over some seeds: one row a training, the best mean of the measure first.

    methods: label -> method (default: `all_methods`); others: of "dm", "dream", "jpeg", "webp"; measure: of MEASURES
    ("macro_accuracy" for imbalanced data); the rest as in `experiments.compare`. Adds to its columns `kind`
    ("selection", "distilled", "re-encoded" or "all") and `n_images`, how many were trained on. No row has what cannot
    be made: a re-encoding that does not fit into the bytes, more distilled images a class than the smallest class has.
    Raises InputError for an unknown name in `others`, an unknown measure and for what `compare` refuses.
    """
    check_measure(measure)
    unknown = [name for name in others if name not in (*DISTILLED, *CODECS)]
    if unknown:
        raise InputError(f"unknown: {', '.join(unknown)}; beside the methods there are dm, dream, jpeg and webp")
    methods = all_methods() if methods is None else methods
    selections = compare(
        data,
        methods,
        [ratio],
        seeds,
        setting=setting,
        workers=workers,
    ).rows
    selections["kind"] = np.where(selections["method"] == FULL, "all", "selection")
    selections["n_images"] = selections["budget"]
    rows = []
    for name in others:
        for seed in seeds:
            row = _other(name, data, ratio, seed, setting or Setting())
            if row is not None:
                rows.append(row)
    table = pd.concat([selections, pd.DataFrame(rows)], ignore_index=True)
    mean = table.groupby("method")[measure].transform("mean")
    return table.iloc[np.lexsort((table["seed"], table["method"], -mean))].reset_index(drop=True)


def check_measure(measure: str) -> str:
    """The measure, when it is one of MEASURES; else InputError."""
    if measure not in MEASURES:
        raise InputError(f"measure is one of {', '.join(MEASURES)}; got {measure!r}")
    return measure


def overview(rows: pd.DataFrame, reference: str = "random", *, measure: str = "accuracy") -> pd.DataFrame:
    """One row a method of the rows of `survey`, in their order.

    Gives method, kind, n_images, n (seeds), the measure's name and half (mean over the seeds and half of its 95 %
    interval), difference and difference_half (to the reference, paired over the seeds the method has; NaN for the
    reference itself) and selection_seconds (mean). A single seed has no interval: NaN.
    Raises InputError when a seed of a method lacks the reference, and for a measure that is not in MEASURES.
    """
    check_measure(measure)
    out = []
    for method, group in rows.groupby("method", sort=False):
        mean, half = mean_interval(group[measure])
        against = {"difference": np.nan, "half": np.nan}
        if method != reference:
            same_seeds = rows[rows["method"].isin([method, reference]) & rows["seed"].isin(group["seed"])]
            against = paired(same_seeds, method, reference, over=["seed"], value=measure)
        out.append(
            {
                "method": method,
                "kind": group["kind"].iloc[0],
                "n_images": int(group["n_images"].iloc[0]),
                "n": len(group),
                measure: mean,
                "half": half,
                "difference": against["difference"],
                "difference_half": against["half"],
                "selection_seconds": float(group["selection_seconds"].mean()),
            }
        )
    return pd.DataFrame(out)


def _other(name: str, data: DataSet, ratio: float, seed: int, setting: Setting) -> dict | None:
    """The row of a distilled or re-encoded set, or None when it cannot be made at this budget."""
    budget = check_ratio(ratio, len(data.train))
    settings = {
        "images": data.train.fingerprint(),
        "test": data.test.fingerprint(),
        "other": name,
        "ratio": ratio,
        "seed": seed,
        **setting.key,
    }

    def compute() -> dict[str, np.ndarray]:
        made, seconds = _made(name, data.train, ratio, seed, setting)
        if made is None:
            return {"accuracy": np.float64(np.nan)}
        seed_ = derive(seed, "evaluation")
        result = train(made, setting=setting, seed=seed_, evaluate_on=data.test)
        return {
            "accuracy": np.float64(result.accuracy),
            "best_accuracy": np.float64(result.best_accuracy),
            "macro_accuracy": np.float64(np.nanmean(result.recall)),
            "cross_entropy": np.float64(result.cross_entropy),
            "selection_seconds": np.float64(round(seconds, 3)),
            "training_seconds": np.float64(round(result.seconds, 3)),
            "n_images": np.int64(len(made)),
        }

    store = setting.store
    found = compute() if store is None else store.load_or_compute("survey", settings, compute, device=setting.device)
    if np.isnan(found["accuracy"]):
        return None
    return {
        "dataset": data.name,
        "method": name,
        "ratio": float(ratio),
        "budget": budget,
        "seed": seed,
        "network": setting.network,
        "recipe": setting.recipe.name,
        "protocol": setting.recipe.kind,
        **{key: value.item() for key, value in found.items()},
        "kind": "distilled" if name in DISTILLED else "re-encoded",
    }


def _made(name: str, images: ImageSet, ratio: float, seed: int, setting: Setting) -> tuple[ImageSet | None, float]:
    """The images to train on, and the seconds they took."""
    if name in DISTILLED:
        if _per_class(images, ratio) > images.class_counts[images.class_counts > 0].min():
            return None, 0.0
        found = distilled(images, ratio, name, seed=seed, setting=setting)
        return found.images, found.seconds
    subset = quantize(images, ratio, method="random", seed=seed).images
    started = time.perf_counter()
    made = _recompressed(images, png_bytes(subset), name)
    return made, time.perf_counter() - started


def _recompressed(images: ImageSet, n_bytes: int, codec: str) -> ImageSet | None:
    try:
        return recompress(images, n_bytes, codec=codec).images
    except InputError:  # too few bytes for all images, however small and coarse
        return None


def png_bytes(images: ImageSet) -> int:
    """Bytes of the images as PNG files (gray ones as gray), without names: what a selection takes, kept exactly."""
    total = 0
    for pixels in images.images:
        gray = (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all()
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if gray else pixels).save(buffer, "PNG", optimize=True)
        total += buffer.tell()
    return total
