"""Select, make and evaluate: the one place where a comparison's training sets and trainings are computed and kept.

A training is named by what it is trained on, pixel by pixel, not by how that came about: a method that is changed and
still selects the same images costs no new training.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dqas_lib.core.checks import check_ratio
from dqas_lib.core.seeds import check_seed, derive
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.makers import Maker, Source, get_source
from dqas_lib.methods.base import can_be_kept, options
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.patchify import Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.probabilities import class_error, ensemble_probabilities
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train


@dataclass(frozen=True, eq=False)
class Selected:
    """A training set as comparisons keep it: its images are read, or made again, only when they are asked for.

    Args:
        fingerprint: Of the images, as `ImageSet.fingerprint` gives it.
        class_counts: (C,) number of images of each class; all 0 when the set cannot be made.
        stored_ratio: Image ratio x fraction of patches kept; of what a maker made, the ratio it was made for.
        seconds: It took, with everything it needed that was not in the store.
        load: Gives the images.
        weights: (B,) loss weights, where the method defines them.
    """

    fingerprint: str
    class_counts: np.ndarray
    stored_ratio: float
    seconds: float
    load: Callable[[], ImageSet]
    weights: np.ndarray | None = None

    @cached_property
    def images(self) -> ImageSet:
        """The images, dropped patches reconstructed, in the order selected."""
        return self.load()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network trained on some images reached on others.

    Args:
        accuracy: In [0, 1], after the last step.
        best_accuracy: The best on the way: a choice made on the test set, never the result.
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


def evaluate(
    images: ImageSet | Selected,
    test: ImageSet,
    setting: Setting | None = None,
    seed: int = 0,
    *,
    weights: np.ndarray | None = None,
    compute: bool = True,
) -> Evaluation | None:
    """Train on `images`, evaluate on `test`; read from the setting's store when it is there.

    Args:
        images: What is trained on.
        test: What is evaluated on.
        setting: Network, recipe, device, store.
        seed: Of the comparison: equal seeds mean equal initial weights and equal order of the data, whatever the
            method.
        weights: (N,) loss weights (default: those of a `Selected`).
        compute: False: None in place of a training that is not in the store.
    """
    setting = setting or Setting()
    fingerprint = images.fingerprint
    if isinstance(images, Selected) and weights is None:
        weights = images.weights
    key = {
        "images": fingerprint if isinstance(fingerprint, str) else fingerprint(),
        "test": test.fingerprint(),
        "seed": check_seed(seed),
        "weights": None if weights is None else np.asarray(weights, dtype=np.float64).tolist(),
        **setting.key,
    }

    def work() -> dict[str, Any]:
        trained_on = images.images if isinstance(images, Selected) else images
        result = train(trained_on, setting=setting, seed=derive(seed, "evaluation"), evaluate_on=test, weights=weights)
        return {
            "accuracy": np.float64(result.accuracy),
            "best_accuracy": np.float64(result.best_accuracy),
            "cross_entropy": np.float64(result.cross_entropy),
            "recall": result.recall,
            "missing": class_error(ensemble_probabilities(result.logits[None]), test.labels, test.n_classes),
            "seconds": np.float64(result.seconds),
        }

    found = _kept(setting.store, "training", key, work, setting, (train, class_error), compute)
    if found is None:
        return None
    return Evaluation(**{name: value if value.ndim else float(value) for name, value in found.items()})


def select(
    images: ImageSet,
    ratio: float,
    method: str | Source,
    seed: int,
    setting: Setting,
    *,
    patchify: str = "none",
    plan: Patchify | None = None,
    ratio_kind: str = "image",
    compute: bool = True,
) -> Selected | None:
    """`quantize`, or what a maker makes, with the result kept in the setting's store.

    Selections by methods and makers from outside the library are made anew each time, because changes to their code
    would go unnoticed.

    Args:
        images, ratio, seed, patchify, ratio_kind: As in `quantize`; a maker drops no patches.
        method: A name of `METHODS` or `MAKERS`, or a method or maker.
        setting: As in `quantize`.
        plan: Which patches are dropped.
        compute: False: None in place of a selection that is not in the store.
    """
    method = get_source(method)
    if isinstance(method, Maker):
        return _make(images, ratio, method, seed, setting, compute)
    plan = plan or Patchify()
    dropping = patchify != "none"
    store = setting.store if can_be_kept(method) and isinstance(plan.autoencoder, AutoencoderRecipe) else None
    key = (
        {}
        if store is None
        else {
            **_key(images, method, ratio, seed, setting),
            "patchify": {"order": patchify, "ratio_kind": ratio_kind, **dataclasses.asdict(plan)} if dropping else None,
        }
    )

    def work() -> dict[str, Any]:
        started = time.perf_counter()
        subset = quantize(
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
        return {
            "ids": subset.ids,
            **_record(subset.images, subset.stored_ratio, started),
            **({} if subset.weights is None else {"weights": subset.weights}),
            **({"pixels": subset.images.images} if dropping else {}),
        }

    code = (type(method), Pool, *((quantize,) if dropping else ()))
    found = _kept(store, "selection", key, work, setting, code, compute)
    if found is None:
        return None

    def load() -> ImageSet:
        subset = images.select(found["ids"])
        return subset.with_images(found["pixels"]) if "pixels" in found else subset

    return _selected(found, load)


def _make(images: ImageSet, ratio: float, maker: Maker, seed: int, setting: Setting, compute: bool) -> Selected | None:
    """What a maker makes; the store keeps a record of it, not the images, which may be all of the data set."""
    store = setting.store if can_be_kept(maker) else None

    def load() -> ImageSet:
        made = maker.make(images, ratio, seed, setting)
        return images.take(np.zeros(0, dtype=np.int64)) if made is None else made

    fresh: list[ImageSet] = []

    def work() -> dict[str, Any]:
        started = time.perf_counter()
        fresh.append(load())
        return _record(fresh[0], ratio, started)

    key = {} if store is None else _key(images, maker, ratio, seed, setting)
    found = _kept(store, "made", key, work, setting, (type(maker),), compute)
    return None if found is None else _selected(found, lambda: fresh[0] if fresh else load())


def _key(images: ImageSet, what: Source, ratio: float, seed: int, setting: Setting) -> dict[str, Any]:
    budget = check_ratio(ratio, len(images))
    return {
        "images": images.fingerprint(),
        "method": options(what),
        "ratio": float(ratio),
        "budget": budget,
        "seed": check_seed(seed),
        **setting.key,
    }


def _record(images: ImageSet, stored_ratio: float, started: float) -> dict[str, Any]:
    return {
        "fingerprint": np.array(images.fingerprint()),
        "class_counts": images.class_counts,
        "stored_ratio": np.float64(stored_ratio),
        "seconds": np.float64(time.perf_counter() - started),
    }


def _selected(found: Mapping[str, np.ndarray], load: Callable[[], ImageSet]) -> Selected:
    numbers = float(found["stored_ratio"]), float(found["seconds"])
    return Selected(str(found["fingerprint"]), found["class_counts"], *numbers, load, found.get("weights"))


def _kept(
    store: Store | None,
    stage: str,
    key: dict[str, Any],
    work: Callable[[], dict[str, Any]],
    setting: Setting,
    code: tuple[Any, ...],
    compute: bool,
) -> dict[str, Any] | None:
    """A result from the store, or computed; None when it is neither there nor to be computed."""
    if store is None:
        return work() if compute else None
    if not compute:
        return store.get(stage, key, code)
    return store.load_or_compute(stage, key, work, device=setting.key["device"], code=code)
