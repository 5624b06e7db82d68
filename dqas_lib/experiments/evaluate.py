"""Select and evaluate: the one place where a comparison's selections and trainings are made, named and kept.

A training is named by what it is trained on, pixel by pixel, not by how that was selected: a method that is changed and
still selects the same images costs no new training.
"""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dqas_lib.core.seeds import check_seed, derive
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.base import Method, can_be_kept, get_method, options
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.probabilities import class_error, ensemble_probabilities
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network trained on some images reached on others.

    Args:
        accuracy, best_accuracy: In [0, 1]: after the last step, and the best on the way.
        cross_entropy: Nats per image.
        recall: (C,) accuracy of each class; NaN for a class without images.
        missing: (C,) mean probability missing at the true class; see `training.probabilities.class_error`.
        seconds: Of the training alone.
    """

    accuracy: float
    best_accuracy: float
    cross_entropy: float
    recall: np.ndarray
    missing: np.ndarray
    seconds: float

    @property
    def macro_accuracy(self) -> float:
        """Mean of the recalls of the classes that have images."""
        return float(np.nanmean(self.recall))


def _training_key(
    images: ImageSet, test: ImageSet, setting: Setting, seed: int, weights: np.ndarray | None
) -> dict[str, Any]:
    return {
        "images": images.fingerprint(),
        "test": test.fingerprint(),
        "seed": check_seed(seed),
        "weights": None if weights is None else np.asarray(weights, dtype=np.float64).tolist(),
        **setting.key,
    }


def evaluate(
    images: ImageSet,
    test: ImageSet,
    setting: Setting | None = None,
    seed: int = 0,
    *,
    weights: np.ndarray | None = None,
    compute: bool = True,
) -> Evaluation | None:
    """Train on `images`, evaluate on `test`; read from the setting's store when it is there.

    Args:
        images, test: What is trained on, and what is evaluated on.
        setting: Network, recipe, device, store.
        seed: Of the comparison: equal seeds mean equal initial weights and equal order of the data, whatever the
            method.
        weights: (N,) loss weights.
        compute: False: None in place of a training that is not in the store.
    """
    setting = setting or Setting()

    def work() -> dict[str, np.ndarray]:
        result = train(images, setting=setting, seed=derive(seed, "evaluation"), evaluate_on=test, weights=weights)
        return {
            "accuracy": np.float64(result.accuracy),
            "best_accuracy": np.float64(result.best_accuracy),
            "cross_entropy": np.float64(result.cross_entropy),
            "recall": result.recall,
            "missing": class_error(ensemble_probabilities(result.logits[None]), test.labels, test.n_classes),
            "seconds": np.float64(result.seconds),
        }

    store, key = setting.store, _training_key(images, test, setting, seed, weights)
    if not compute:
        found = None if store is None else store.get("training", key, (train,))
    elif store is None:
        found = work()
    else:
        found = store.load_or_compute("training", key, work, device=setting.key["device"], code=(train,))
    if found is None:
        return None
    per_class = {name: found.pop(name) for name in ("recall", "missing")}
    return Evaluation(**per_class, **{name: float(value) for name, value in found.items()})


@dataclass(frozen=True, eq=False)
class Selected:
    """A selection as comparisons keep it.

    Args:
        images: The selected images, dropped patches reconstructed.
        weights: (B,) loss weights, where the method defines them.
        stored_ratio: Image ratio x fraction of patches kept.
        seconds: Of the selection, everything it needed included.
    """

    images: ImageSet
    weights: np.ndarray | None
    stored_ratio: float
    seconds: float


def select(
    images: ImageSet,
    ratio: float,
    method: str | Method,
    seed: int,
    setting: Setting,
    *,
    patchify: str = "none",
    plan: Patchify | None = None,
    ratio_kind: str = "image",
    compute: bool = True,
) -> Selected | None:
    """`quantize`, with its result kept in the setting's store.

    plan: which patches are dropped; compute: False gives None in place of a selection that is not in the store.
    Selections by methods from outside the library are made anew each time, because changes to their code would go
    unnoticed.
    """
    method, plan = get_method(method), plan or Patchify()
    key = {
        "images": images.fingerprint(),
        "method": options(method),
        "ratio": float(ratio),
        "seed": check_seed(seed),
        **setting.key,
        "patchify": _plain(patchify, plan, ratio_kind),
    }
    code: tuple[Any, ...] = (type(method), Pool) if patchify == "none" else (type(method), Pool, Patchifier)
    kept = setting.store if can_be_kept(method) and key["patchify"].get("autoencoder") != "given" else None

    def work() -> dict[str, np.ndarray]:
        started = time.perf_counter()
        found = quantize(
            images,
            ratio,
            method=method,
            seed=seed,
            setting=setting,
            patchify=patchify,
            theta=plan.theta,
            drop=plan.drop,
            patch_size=plan.patch_size,
            autoencoder=plan.autoencoder,
            ratio_kind=ratio_kind,
        )
        result = {
            "ids": found.ids,
            "stored_ratio": np.float64(found.stored_ratio),
            "seconds": np.float64(time.perf_counter() - started),
        }
        if found.weights is not None:
            result["weights"] = found.weights
        if patchify != "none":
            result["pixels"] = found.images.images
        return result

    if not compute:
        found = None if kept is None else kept.get("selection", key, code)
    elif kept is None:
        found = work()
    else:
        found = kept.load_or_compute("selection", key, work, device=setting.key["device"], code=code)
    if found is None:
        return None
    subset = images.select(found["ids"])
    if "pixels" in found:
        subset = subset.with_images(found["pixels"])
    return Selected(subset, found.get("weights"), float(found["stored_ratio"]), float(found["seconds"]))


def _plain(patchify: str, plan: Patchify, ratio_kind: str) -> dict[str, Any]:
    if patchify == "none":
        return {"order": "none"}
    coder = plan.autoencoder
    return {
        "order": patchify,
        "theta": dataclasses.asdict(plan.theta) if dataclasses.is_dataclass(plan.theta) else float(plan.theta),
        "drop": plan.drop,
        "patch_size": plan.patch_size,
        "autoencoder": dataclasses.asdict(coder) if isinstance(coder, AutoencoderRecipe) else "given",
        "ratio_kind": ratio_kind,
    }
