"""Select and evaluate: the one place where a comparison's training sets and trainings are computed and kept.

A training is named by what it is trained on, pixel by pixel, not by how that came about: a method that is changed and
still selects the same images costs no new training.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dqas_lib.core.checks import check_ratio, kinds
from dqas_lib.core.seeds import check_seed, derive
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.makers import Maker, Source, get_source
from dqas_lib.methods.base import can_be_kept, options, parts
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.patchify import Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import order_of, quantize
from dqas_lib.training.checked import check_evaluable
from dqas_lib.training.probabilities import class_error, ensemble_probabilities
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

Arrays = dict[str, Any]
REACHED = ("accuracy", "best_accuracy", "cross_entropy", "recall", "seconds")


@dataclass(frozen=True, eq=False)
class Selected:
    """A training set as comparisons keep it: its images are read, or made again by `load`, only when asked for."""

    fingerprint: str
    class_counts: np.ndarray  # (C,) images of each class; all 0 when a maker cannot make the set
    stored_ratio: float  # image ratio x fraction of patches kept; of what a maker made, the ratio it was made for
    seconds: float  # it took, with everything it needed that was not in the store
    load: Callable[[], ImageSet]
    weights: np.ndarray | None = None  # (B,) of the losses, where the method defines them
    ids: np.ndarray | None = None  # (B,) in the order selected; None of what a maker made

    @cached_property
    def images(self) -> ImageSet:
        """The images, dropped patches reconstructed, in the order selected."""
        return self.load()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network trained on some images reached on others."""

    accuracy: float  # in [0, 1], after the last step
    best_accuracy: float  # the best on the way: a choice made on the test set, never the result
    cross_entropy: float  # nats per image
    recall: np.ndarray  # (C,) accuracy of each class; NaN for a class without images
    missing: np.ndarray  # (C,) mean probability missing at the true class; see `training.probabilities.class_error`
    seconds: float  # of the training alone

    @property
    def macro_accuracy(self) -> float:
        """Mean of the recalls of the classes that have images."""
        return float(np.nanmean(self.recall))


@kinds
def select(
    images: ImageSet,
    ratio: float,
    method: str | Source,
    seed: int,
    setting: Setting,
    patchify: str | None = None,
    plan: Patchify | None = None,
    ratio_kind: str = "image",
    *,
    compute: bool = True,
) -> Selected | None:
    """`quantize`, or what a maker (which drops no patches) makes, with the result kept in the setting's store.

    What methods and makers from outside the library give is computed anew each time, because changes to their code
    would go unnoticed. Of what a maker makes only a record is kept, not the images, which may be as many as there are.
    With compute=False, a selection that is not in the store is None.
    """
    source: Any = get_source(method)
    setting = setting.suited_to(images)
    plan, making = (plan or Patchify()).suited_to(images), isinstance(source, Maker)
    order = order_of(source) if patchify is None else patchify
    dropping = order != "none" and not making
    keep = can_be_kept(source) and (not dropping or isinstance(plan.autoencoder, AutoencoderRecipe))
    key = {"images": images.fingerprint(), "method": options(source), "ratio": float(ratio), "seed": check_seed(seed)}
    key |= {"budget": check_ratio(ratio, len(images)), **setting.key}
    if keep and dropping:
        key["patchify"] = {"order": order, "ratio_kind": ratio_kind, **dataclasses.asdict(plan)}
    fresh: list[ImageSet] = []  # the images, when they are computed here

    def make() -> ImageSet:
        made = source.make(images, ratio, seed, setting)
        return images.take(np.zeros(0, dtype=np.int64)) if made is None else made

    def work() -> Arrays:
        started = time.perf_counter()
        if making:
            made, stored_ratio, weights = make(), ratio, None
        else:
            selection = quantize(
                images,
                ratio,
                method=source,
                seed=seed,
                setting=setting,
                patchify=order,
                ratio_kind=ratio_kind,
                theta=plan.theta,
                drop=plan.drop,
                patch_size=plan.patch_size,
                autoencoder=plan.autoencoder,
            )
            made, stored_ratio, weights = selection.images, selection.stored_ratio, selection.weights
        fresh.append(made)
        return {
            "fingerprint": np.array(made.fingerprint()),
            "class_counts": made.class_counts,
            "stored_ratio": np.float64(stored_ratio),
            "seconds": np.float64(time.perf_counter() - started),
            **({} if weights is None else {"weights": weights}),
            **({} if making else {"ids": made.ids}),
            **({"pixels": made.images} if dropping else {}),
        }

    code = (*map(type, parts(source)), Pool, *((quantize,) if dropping else ()))
    found = _kept("selection", key, work, code, setting.store if keep else None, compute)
    if found is None:
        return None

    def load() -> ImageSet:
        if fresh or making:
            return fresh[0] if fresh else make()
        subset = images.select(found["ids"])
        return subset.with_images(found["pixels"]) if dropping else subset

    numbers = float(found["stored_ratio"]), float(found["seconds"])
    return Selected(
        str(found["fingerprint"]), found["class_counts"], *numbers, load, found.get("weights"), found.get("ids")
    )


@kinds
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
        images, test: What is trained on, and what is evaluated on.
        seed: Of the comparison: equal seeds mean equal initial weights and equal order of the data for every method.
        weights: (N,) loss weights (default: those of a `Selected`).
        compute: False: None in place of a training that is not in the store.
    """
    setting = (setting or Setting()).suited_to(test)
    if isinstance(images, ImageSet):
        check_evaluable(images, test)
    if isinstance(images, Selected) and weights is None:
        weights = images.weights
    key = {
        "images": images.fingerprint if isinstance(images, Selected) else images.fingerprint(),
        "test": test.fingerprint(),
        "seed": check_seed(seed),
        "weights": None if weights is None else np.asarray(weights, dtype=np.float64).tolist(),
        **setting.key,
    }

    def work() -> Arrays:
        trained_on = images.images if isinstance(images, Selected) else images
        result = train(trained_on, setting=setting, seed=derive(seed, "evaluation"), evaluate_on=test, weights=weights)
        numbers = {name: np.asarray(getattr(result, name)) for name in REACHED}
        probabilities = ensemble_probabilities(result.logits[None])
        return numbers | {"missing": class_error(probabilities, test.labels, test.n_classes)}

    found = _kept("training", key, work, (train, class_error), setting.store, compute)
    if found is None:
        return None
    values: Arrays = {name: value if value.ndim else float(value) for name, value in found.items()}
    return Evaluation(**values)


def _kept(
    stage: str, key: Arrays, work: Callable[[], Arrays], code: tuple[Any, ...], store: Store | None, compute: bool
) -> Arrays | None:
    """A result from the store, or computed; None when it is neither there nor to be computed."""
    if store is None:
        return work() if compute else None
    if not compute:
        return store.get(stage, key, code)
    return store.load_or_compute(stage, key, work, device=key["device"], code=code)
