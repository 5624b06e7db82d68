"""Training sets of equal bytes: fewer images, smaller images, or both, trained on and compared [ours]."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dqas_lib.compressed.byte_budget import TooFewBytes, bytes_asked, reference_bytes
from dqas_lib.compressed.codecs import LOSSY, Codec
from dqas_lib.core.checks import one_of
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.evaluate import evaluate
from dqas_lib.quantize import quantize
from dqas_lib.training.setting import Setting

# what `quantize` is told beside the bytes; "share": forced number of images, as a fraction of all
ARMS: dict[str, dict[str, Any]] = {
    "random, lossless": {"method": "random", "codec": "lossless"},
    "dqas-plus, lossless": {"method": "dqas-plus", "codec": "lossless"},
    "all, JPEG": {"method": "random", "codec": Codec("JPEG", 50), "share": 1.0},
    "all, WebP": {"method": "random", "codec": "webp", "share": 1.0},
    "all, AVIF": {"method": "random", "codec": "avif", "share": 1.0},
    "half, twice the bytes": {"method": "random", "share": 0.5},
    "fitted": {"method": "random"},
    "fitted, dqas-plus": {"method": "dqas-plus"},
    "random, lossless, soft labels": {"method": "random", "codec": "lossless", "soft_labels": True},
    "fitted, soft labels": {"method": "random", "soft_labels": True},
}


def compare_bytes(
    data: DataSet,
    amounts: Sequence[int | str],
    arms: Sequence[str] | Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    *,
    setting: Setting | None = None,
) -> pd.DataFrame:
    """One row per training: dataset, asked, bytes, reference, arm, seed, n_images, quality, accuracy, seconds.

    An arm that does not fit into the bytes has no row: all images at quality 0 may take more than a small budget.

    Args:
        amounts: Budgets, as `bytes` of `quantize`.
        arms: Names of ARMS, or label -> arguments of `quantize`.
        seeds: Paired over the arms; the storage law has one of its own, so that it is fitted once.
        setting: Network, recipe, device, and the store that keeps pilots and trainings.
    """
    setting = (setting or Setting()).suited_to(data.train)
    named = arms if isinstance(arms, Mapping) else {name: ARMS[one_of("arm", name, ARMS)] for name in arms}
    total, reference = reference_bytes(data.train, setting)
    rows = []
    for amount in amounts:
        budget = bytes_asked(amount, lambda: total)
        for arm, given in named.items():
            options = {key: value for key, value in given.items() if key != "share"}
            if options.get("codec") == "avif" and LOSSY["avif"] is None:
                continue
            if "share" in given:
                options["n_images"] = max(1, round(given["share"] * len(data.train)))
            for seed in seeds:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", UserWarning)  # the row says how many bytes are taken
                        chosen = quantize(data.train, bytes=budget, seed=seed, setting=setting, **options)
                except TooFewBytes:
                    continue
                found = evaluate(chosen.images, data.test, setting, seed, weights=chosen.weights)
                assert found is not None
                qualities = [sheet.codec.quality for sheet in chosen.sheets or () for _ in range(sheet.count)]
                rows.append(
                    {
                        "dataset": data.name,
                        "asked": str(amount),
                        "budget": budget,
                        "bytes": chosen.total_bytes,
                        "reference": reference,
                        "arm": arm,
                        "seed": seed,
                        "n_images": len(chosen),
                        "quality": float(np.mean(qualities)) if qualities else np.nan,  # NaN: lossless
                        "accuracy": found.accuracy,
                        "training_seconds": found.seconds,
                    }
                )
    return pd.DataFrame(rows)
