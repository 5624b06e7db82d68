"""Comparisons: a grid of selections and trainings -> tidy rows, one row per training.

Every comparison has the same budgets and paired seeds: seed s means the same random streams of the selection and the
same initial weights and batches of the evaluation for every method. Selections and trainings are kept in the store, so
a stopped grid goes on, and a second call with more ratios computes only what is new.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from dqas_lib.core.checks import check_ratio
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import check_seed
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.evaluate import Evaluation, Selected, evaluate, select
from dqas_lib.methods.base import Method, get_method
from dqas_lib.patches.masks import AdaptiveTheta
from dqas_lib.patches.patchify import Patchify
from dqas_lib.quantize import ORDERS, RATIO_KINDS
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

FULL = "full"  # the label of training on all images, at ratio 1


@dataclass(frozen=True)
class Trial:
    """One selection, and one training on it.

    Args:
        label: The method's name in tables.
        method, ratio, ratio_kind, seed, patchify, plan: The selection; see `quantize`.
        setting: Of what the method itself trains.
        evaluation: Of the final training.
    """

    label: str
    method: Method
    ratio: float
    seed: int
    setting: Setting
    evaluation: Setting
    patchify: str = "none"
    plan: Patchify = field(default_factory=Patchify)
    ratio_kind: str = "image"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Tidy results.

    Args:
        rows: One row per training: dataset, method, ratio, ratio_kind, patchify, theta, drop, budget (images),
            stored_ratio, seed, network, recipe, protocol, accuracy (last epoch), best_accuracy, macro_accuracy (mean
            recall), cross_entropy, selection_seconds, training_seconds.
        classes: One row per training and class: class, selected (images of it), recall.
    """

    rows: pd.DataFrame
    classes: pd.DataFrame


def workers_here(device: str) -> int:
    """Worker processes by default: $DQAS_WORKERS, else one per core on a CPU and one on a GPU."""
    given = os.environ.get("DQAS_WORKERS", "")
    if given:
        if not given.isdigit() or int(given) < 1:
            raise InputError(f"DQAS_WORKERS must be a whole number >= 1; got {given!r}")
        return int(given)
    return 1 if device != "cpu" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def compare(
    data: DataSet,
    methods: Mapping[str, str | Method] | Sequence[str | Method],
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    setting: Setting | None = None,
    evaluate_with: Sequence[str] | None = None,
    evaluate_recipe: str | Recipe | None = None,
    patchify: str | Sequence[str] = "none",
    theta: float | AdaptiveTheta | Sequence[float | AdaptiveTheta] = 0.25,
    drop: str | Sequence[str] = "importance",
    autoencoder: str = "small",
    ratio_kind: str = "image",
    workers: int | None = None,
    compute: bool = True,
) -> Comparison:
    """Select with every method at every ratio and seed, train on what was selected, evaluate on the test set.

    Args:
        data: Training and test images.
        methods: Names or methods, or label -> name or method; FULL ("full") trains on all images.
        ratios, ratio_kind: As in `quantize`.
        seeds: Paired over the methods.
        setting: Of what the methods train; its store keeps selections and trainings, its progress shows a bar.
        evaluate_with, evaluate_recipe: Networks and recipe of the final training (default: the setting's).
        patchify, theta, drop: As in `quantize`; each may be several values, of which every combination is tried ("none"
            drops no patches, so it stands once).
        autoencoder: Recipe of the autoencoder.
        workers: Processes (default: `workers_here`).
        compute: False trains nothing and gives the rows that are in the store.

    Raises:
        InputError: For anything that cannot be used, before anything runs.
    """
    setting = setting or Setting()
    if not isinstance(methods, Mapping):
        methods = {method if isinstance(method, str) else get_method(method).name: method for method in methods}
    plans = _plans(patchify, theta, drop, autoencoder)
    if ratio_kind not in RATIO_KINDS:
        raise InputError(f"ratio_kind must be one of {', '.join(RATIO_KINDS)}; got {ratio_kind!r}")
    evaluations = [
        setting.replace(network=network, recipe=evaluate_recipe or setting.recipe, progress=False)
        for network in evaluate_with or [setting.network]
    ]
    trials = []
    for seed in seeds:
        for label, method in methods.items():
            for ratio in [1.0] if label == FULL else ratios:
                check_ratio(ratio, len(data.train))
                for order, plan in [("none", Patchify())] if label == FULL else plans:
                    for evaluation in evaluations:
                        trials.append(
                            Trial(
                                label=label,
                                method=get_method("random" if label == FULL else method),
                                ratio=float(ratio),
                                seed=check_seed(seed),
                                setting=setting.replace(progress=False),
                                evaluation=evaluation,
                                patchify=order,
                                plan=plan,
                                ratio_kind="image" if order == "none" else ratio_kind,
                            )
                        )
    rows, classes = [], []
    workers = workers_here(setting.device) if workers is None else workers
    for row, of_classes in _run(data, trials, workers, setting.progress, compute):
        rows.append(row)
        classes += of_classes
    return Comparison(pd.DataFrame(rows), pd.DataFrame(classes))


def _several(value: object) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


def _plans(patchify: object, theta: object, drop: object, autoencoder: str) -> list[tuple[str, Patchify]]:
    """(order, plan) of every combination; "none" stands once."""
    plans: list[tuple[str, Patchify]] = []
    for order in _several(patchify):
        if order not in ORDERS:
            raise InputError(f"patchify must be one of {', '.join(ORDERS)}; got {order!r}")
        if order == "none":
            plans.append((order, Patchify()))
        else:
            plans += [(order, Patchify(t, d, autoencoder=autoencoder)) for d in _several(drop) for t in _several(theta)]
    return plans


def _run(
    data: DataSet, trials: Sequence[Trial], workers: int, progress: bool, compute: bool
) -> list[tuple[dict, list[dict]]]:
    """Results of the trials, in their order; those that are missing are left out unless `compute`."""
    bar = tqdm(total=len(trials), desc=f"trainings on {data.name}", disable=not progress)
    cached = [_trial(data, trial, compute=False) for trial in trials]
    if not compute:
        bar.close()
        return [found for found in cached if found is not None]
    missing = [i for i, found in enumerate(cached) if found is None]
    bar.update(len(trials) - len(missing))
    if workers == 1 or len(missing) < 2:
        computed = (_trial(data, trials[i]) for i in missing)
    else:
        import joblib

        # copy on write: PyTorch warns of arrays that cannot be written
        with joblib.parallel_config("loky", inner_max_num_threads=1, mmap_mode="c"):
            pool = joblib.Parallel(n_jobs=min(workers, len(missing)), return_as="generator")
            computed = pool(joblib.delayed(_trial)(data, trials[i]) for i in missing)
    for i, result in zip(missing, computed, strict=True):
        cached[i] = result
        bar.update(1)
    bar.close()
    return cached


def _trial(data: DataSet, trial: Trial, compute: bool = True) -> tuple[dict, list[dict]] | None:
    """Select, train, evaluate: one row, and one row per class; None when it is not in the store and not computed."""
    selected = select(
        data.train,
        trial.ratio,
        trial.method,
        trial.seed,
        trial.setting,
        patchify=trial.patchify,
        plan=trial.plan,
        ratio_kind=trial.ratio_kind,
        compute=compute,
    )
    if selected is None:
        return None
    reached = evaluate(
        selected.images, data.test, trial.evaluation, trial.seed, weights=selected.weights, compute=compute
    )
    return None if reached is None else _row(data, trial, selected, reached)


def _row(data: DataSet, trial: Trial, selected: Selected, reached: Evaluation) -> tuple[dict, list[dict]]:
    recipe = trial.evaluation.recipe
    dropping = trial.patchify != "none"
    theta = trial.plan.theta
    key = {
        "dataset": data.name,
        "method": trial.label,
        "ratio": trial.ratio,
        "budget": len(selected.images),
        "seed": trial.seed,
        "network": trial.evaluation.network,
        "recipe": recipe.name,
        "patchify": trial.patchify,
        "theta": (np.nan if isinstance(theta, AdaptiveTheta) else theta) if dropping else 0.0,
        "drop": trial.plan.drop if dropping else "-",
    }
    row = {
        **key,
        "ratio_kind": trial.ratio_kind,
        "stored_ratio": selected.stored_ratio,
        "protocol": recipe.kind,
        "accuracy": reached.accuracy,
        "best_accuracy": reached.best_accuracy,
        "macro_accuracy": reached.macro_accuracy,
        "cross_entropy": reached.cross_entropy,
        "selection_seconds": round(selected.seconds, 3),
        "training_seconds": round(reached.seconds, 3),
    }
    classes = [
        {**key, "class": name, "selected": int(n), "recall": float(recall)}
        for name, n, recall in zip(data.train.class_names, selected.images.class_counts, reached.recall, strict=True)
    ]
    return row, classes
