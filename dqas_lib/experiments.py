"""Experiments: a grid of selections and trainings -> tidy rows, one row a training.

Every comparison has the same budgets and paired seeds: seed s means the same random streams of the selection and the
same initial weights and batches of the evaluation for every method. Selections and trainings are kept in the store, so
a stopped grid goes on, and a second call with more ratios computes only what is new.
"""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from dqas_lib.budget import check_ratio
from dqas_lib.errors import InputError
from dqas_lib.images import DataSet
from dqas_lib.imbalance import long_tailed
from dqas_lib.methods import Method, get_method, options
from dqas_lib.quantize import quantize
from dqas_lib.seeds import check_seed, derive
from dqas_lib.store import Store
from dqas_lib.training import Recipe, check_device, get_recipe, train

FULL = "full"  # the label of training on all images, at ratio 1


@dataclass(frozen=True)
class Trial:
    """One selection and the training of `evaluate_with` on it.

    label: the method's name in tables; network, recipe: of what the method itself trains; evaluate_with,
    evaluate_recipe: of the final training.
    """

    label: str
    method: Method
    ratio: float
    seed: int
    network: str
    recipe: Recipe
    evaluate_with: str
    evaluate_recipe: Recipe
    device: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Tidy results.

    rows: one row a training (dataset, method, ratio, budget, seed, network, recipe, protocol, accuracy = last epoch,
    best_accuracy, macro_accuracy = mean recall, cross_entropy, selection_seconds, training_seconds);
    classes: one row a training and class (class, selected = images of it, recall).
    """

    rows: pd.DataFrame
    classes: pd.DataFrame


def limited(data: DataSet, per_class: int) -> DataSet:
    """The data set with only the first `per_class` training images of each class, by id; 0 keeps all.

    The smaller set is named after its size ("cifar10-1000"), so that its results are never taken for the full set's.
    """
    if per_class < 0:
        raise InputError(f"per_class must be >= 0 (0 keeps all images); got {per_class!r}")
    if not per_class:
        return data
    order = np.argsort(data.train.ids, kind="stable")
    members = [order[data.train.labels[order] == label][:per_class] for label in range(data.train.n_classes)]
    train_part = data.train.take(np.sort(np.concatenate(members)))
    return DataSet(f"{data.name}-{per_class}", train=train_part, test=data.test)


def imbalanced(data: DataSet, factor: float) -> DataSet:
    """The data set with long-tailed training images: the largest class `factor` times the smallest; 1 changes nothing.

    See `imbalance.long_tailed`; the test images stay as they are. It is named after the factor ("digits-lt10").
    """
    if factor == 1:
        return data
    return DataSet(f"{data.name}-lt{factor:g}", train=long_tailed(data.train, factor), test=data.test)


def workers_here(device: str) -> int:
    """Worker processes by default: $DQAS_WORKERS, else one a core on a CPU and one on a GPU."""
    given = os.environ.get("DQAS_WORKERS", "")
    if given:
        if not given.isdigit() or int(given) < 1:
            raise InputError(f"DQAS_WORKERS must be a whole number >= 1; got {given!r}")
        return int(given)
    return 1 if device != "cpu" else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def compare(
    data: DataSet,
    methods: Mapping[str, str | Method] | Sequence[str],
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    network: str = "small_cnn",
    recipe: str | Recipe = "cpu",
    evaluate_with: Sequence[str] | None = None,
    evaluate_recipe: str | Recipe | None = None,
    device: str = "cpu",
    store: Store | None = None,
    workers: int | None = None,
    progress: bool = True,
    compute: bool = True,
) -> Comparison:
    """Select with every method at every ratio and seed, train on what was selected, evaluate on the test set.

    methods: names, or label -> name or method with options; FULL ("full") trains on all images. ratios: image ratios.
    evaluate_with: networks of the final training (default: `network`); evaluate_recipe: default `recipe`.
    workers: processes (default: workers_here); compute: False trains nothing and gives the rows that are in the store.
    Raises InputError before anything runs.
    """
    named = dict(methods) if isinstance(methods, Mapping) else {name: name for name in methods}
    check_device(device)
    workers = workers_here(device) if workers is None else workers
    trials = []
    for seed in seeds:
        for label, method in named.items():
            for ratio in [1.0] if label == FULL else ratios:
                check_ratio(ratio, len(data.train))
                for architecture in evaluate_with or [network]:
                    trials.append(
                        Trial(
                            label=label,
                            method=get_method("random" if label == FULL else method),
                            ratio=float(ratio),
                            seed=check_seed(seed),
                            network=network,
                            recipe=get_recipe(recipe),
                            evaluate_with=architecture,
                            evaluate_recipe=get_recipe(evaluate_recipe or recipe),
                            device=device,
                        )
                    )
    fingerprints = data.train.fingerprint(), data.test.fingerprint()
    rows, classes = [], []
    for row, of_classes in _run(data, trials, fingerprints, store, workers, progress, compute):
        rows.append(row)
        classes += of_classes
    return Comparison(pd.DataFrame(rows), pd.DataFrame(classes))


def _run(data, trials, fingerprints, store, workers, progress, compute):
    """Results of the trials, in their order; those that are missing are left out unless `compute`."""
    bar = tqdm(total=len(trials), desc=f"trainings on {data.name}", disable=not progress)
    cached = [None if store is None else _stored(data, trial, fingerprints, store) for trial in trials]
    if not compute:
        bar.close()
        return [found for found in cached if found is not None]
    missing = [i for i, found in enumerate(cached) if found is None]
    bar.update(len(trials) - len(missing))
    if workers == 1 or len(missing) < 2:
        computed = (_trial(data, trials[i], fingerprints, store) for i in missing)
    else:
        import joblib

        # copy on write: PyTorch warns of arrays that cannot be written
        with joblib.parallel_config("loky", inner_max_num_threads=1, mmap_mode="c"):
            pool = joblib.Parallel(n_jobs=min(workers, len(missing)), return_as="generator")
            computed = pool(joblib.delayed(_trial)(data, trials[i], fingerprints, store) for i in missing)
    for i, result in zip(missing, computed, strict=True):
        cached[i] = result
        bar.update(1)
    bar.close()
    return cached


def _settings(trial: Trial, fingerprints: tuple[str, str]) -> tuple[dict, dict]:
    """What a trial's selection and its training depend on, for store keys."""
    selection = {
        "images": fingerprints[0],
        "method": options(trial.method),
        "ratio": trial.ratio,
        "seed": trial.seed,
        "network": trial.network,
        "recipe": dataclasses.asdict(trial.recipe),
        "device": trial.device.split(":")[0],
    }
    training = {
        **selection,
        "test": fingerprints[1],
        "evaluate_with": trial.evaluate_with,
        "evaluate_recipe": dataclasses.asdict(trial.evaluate_recipe),
    }
    return selection, training


def stored_ids(
    data: DataSet,
    method: str | Method,
    ratio: float,
    seed: int,
    *,
    network: str,
    recipe: str | Recipe,
    device: str,
    store: Store,
) -> np.ndarray | None:
    """(B,) ids of a selection that `compare` left in the store, in the order chosen; None when it is not there."""
    recipe = get_recipe(recipe)
    trial = Trial("", get_method(method), float(ratio), check_seed(seed), network, recipe, network, recipe, device)
    found = store.get("selection", _settings(trial, (data.train.fingerprint(), ""))[0])
    return None if found is None else found["ids"]


def _stored(data: DataSet, trial: Trial, fingerprints: tuple[str, str], store: Store) -> tuple[dict, list] | None:
    found = store.get("training", _settings(trial, fingerprints)[1])
    return None if found is None else _row(data, trial, found)


def _trial(data: DataSet, trial: Trial, fingerprints: tuple[str, str], store: Store | None) -> tuple[dict, list[dict]]:
    """Select, train, evaluate: one row, and one row a class."""
    of_selection, of_training = _settings(trial, fingerprints)

    def select() -> dict[str, np.ndarray]:
        started = time.perf_counter()
        selection = quantize(
            data.train,
            trial.ratio,
            method=trial.method,
            seed=trial.seed,
            network=trial.network,
            recipe=trial.recipe,
            device=trial.device,
            store=store,
        )
        weights = {} if selection.weights is None else {"weights": selection.weights}
        return {"ids": selection.ids, "seconds": np.float64(time.perf_counter() - started), **weights}

    def train_on_selected() -> dict[str, np.ndarray]:
        chosen = select() if store is None else store.load_or_compute("selection", of_selection, select)
        subset = data.train.select(chosen["ids"])
        result = train(
            subset,
            network=trial.evaluate_with,
            recipe=trial.evaluate_recipe,
            seed=derive(trial.seed, "evaluation"),
            device=trial.device,
            evaluate_on=data.test,
            weights=chosen.get("weights"),
        )
        return {
            "accuracy": np.float64(result.accuracy),
            "best_accuracy": np.float64(result.best_accuracy),
            "cross_entropy": np.float64(result.cross_entropy),
            "recall": result.recall,
            "selected": subset.class_counts,
            "selection_seconds": chosen["seconds"],
            "training_seconds": np.float64(result.seconds),
        }

    if store is None:
        result = train_on_selected()
    else:
        result = store.load_or_compute("training", of_training, train_on_selected, device=trial.device)
    return _row(data, trial, result)


def _row(data: DataSet, trial: Trial, result: Mapping[str, np.ndarray]) -> tuple[dict, list[dict]]:
    key = {
        "dataset": data.name,
        "method": trial.label,
        "ratio": trial.ratio,
        "budget": int(result["selected"].sum()),
        "seed": trial.seed,
        "network": trial.evaluate_with,
        "recipe": trial.evaluate_recipe.name,
    }
    row = {
        **key,
        "protocol": trial.evaluate_recipe.kind,
        "accuracy": float(result["accuracy"]),
        "best_accuracy": float(result["best_accuracy"]),
        "macro_accuracy": float(np.nanmean(result["recall"])),
        "cross_entropy": float(result["cross_entropy"]),
        "selection_seconds": round(float(result["selection_seconds"]), 3),
        "training_seconds": round(float(result["training_seconds"]), 3),
    }
    classes = [
        {**key, "class": name, "selected": int(selected), "recall": float(recall)}
        for name, selected, recall in zip(data.train.class_names, result["selected"], result["recall"], strict=True)
    ]
    return row, classes
