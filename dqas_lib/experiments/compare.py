"""Comparisons: a grid of training sets and trainings -> tidy rows, one row per training.

Every comparison has the same budgets and paired seeds: seed s means the same random streams of the selection and the
same initial weights and order of the data for every method. Selections and trainings are kept in the store, so a
stopped grid goes on, and a second call with more ratios computes only what is new.
"""

import itertools
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from dqas_lib.budget.sensitivity import Pilots
from dqas_lib.core.checks import check_ratio, kinds, one_of, whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import check_seed
from dqas_lib.data.image_set import DataSet
from dqas_lib.experiments.evaluate import evaluate, select
from dqas_lib.experiments.makers import Maker, Source, get_source
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.masks import AdaptiveTheta
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import ORDERS, RATIO_KINDS, images_at, order_of
from dqas_lib.training.checked import check_evaluable
from dqas_lib.training.networks import NETWORKS, Architecture
from dqas_lib.training.recipes import Recipe, get_recipe
from dqas_lib.training.setting import Setting

FULL = "full"  # the label of training on all images, at ratio 1
REACHED = ("accuracy", "best_accuracy", "macro_accuracy", "cross_entropy")

Sources = Mapping[str, str | Source] | Sequence[str | Source]
Theta = float | AdaptiveTheta
Patches = tuple[str, Patchify, str]  # order, plan, kind of ratio
Result = tuple[dict[str, Any], list[dict[Hashable, Any]], np.ndarray | None]  # a row, its rows per class, its ids


@dataclass(frozen=True, eq=False)
class Comparison:
    """Tidy results.

    Args:
        rows: One per training: dataset, method, kind ("selection", "all" or a maker's), ratio, ratio_kind, patchify,
            theta (NaN when adaptive), drop, stored_ratio, budget (images the ratio gives), n_images (trained on), seed,
            network, recipe, protocol, accuracy (after the last step), best_accuracy, macro_accuracy (mean recall),
            cross_entropy, selection_seconds, training_seconds.
        classes: One per training and class: class, selected (images), recall, missing (mean probability missing at the
            true class).
        ids: Name of each selection, such as "digits-dqas-10pct-seed0" -> its ids, in the order selected.
    """

    rows: pd.DataFrame
    classes: pd.DataFrame
    ids: Mapping[str, np.ndarray]

    def pilots(self, method: str) -> Pilots:
        """The runs of one method as pilots of its learning curves; compare(...) was given validation images as test."""
        rows = self.classes[self.classes["method"] == method]
        shape = rows["seed"].nunique(), rows["ratio"].nunique(), rows["class"].nunique()
        if not len(rows) or len(rows) != np.prod(shape):
            raise InputError(f"{method!r} has not one training for every seed and ratio: give ratios it can make")
        sizes, errors, recall = (rows[name].to_numpy().reshape(shape) for name in ("selected", "missing", "recall"))
        accuracy = self.rows.loc[self.rows["method"] == method, "accuracy"].to_numpy().reshape(shape[:2])
        return Pilots(sizes.mean(axis=0), errors, recall, accuracy)


@dataclass(frozen=True)
class Trial:
    """One training set, and one training on it."""

    label: str
    source: Source
    ratio: float
    seed: int
    setting: Setting
    evaluation: Setting
    patches: Patches


def workers_here(device: str) -> int:
    """Worker processes by default: $DQAS_WORKERS, else one per core on a CPU and one on a GPU."""
    given = os.environ.get("DQAS_WORKERS") or str(joblib.cpu_count() if device == "cpu" else 1)
    if not given.isdigit() or int(given) < 1:
        raise InputError(f"DQAS_WORKERS must be a whole number >= 1; got {given!r}")
    return int(given)


@kinds
def compare(
    data: DataSet,
    methods: Sources,
    ratios: Sequence[float],
    seeds: Sequence[int],
    *,
    setting: Setting | None = None,
    evaluate_with: Sequence[str] | None = None,
    evaluate_recipe: str | Recipe | None = None,
    patchify: str | Sequence[str] | None = None,
    theta: Theta | Sequence[Theta] = 0.25,
    drop: str | Sequence[str] = "importance",
    autoencoder: str | AutoencoderRecipe = "auto",
    ratio_kind: str = "image",
    workers: int | None = None,
    compute: bool = True,
) -> Comparison:
    """Select with every method at every ratio and seed, train on what was selected, evaluate on the test set.

    What a maker cannot make has no row: a re-encoding that does not fit into the bytes, for instance. InputError for
    anything that cannot be used comes before anything runs.

    Args:
        data, seeds: Training and test images; seeds are paired over the methods.
        methods: Names of `METHODS` or `MAKERS`, methods or makers, or label -> one of these; FULL ("full") trains on
            all images.
        ratios, ratio_kind, autoencoder: As in `quantize`; of what drops no patches both kinds are the same.
        setting: Of what the methods train; its store keeps selections and trainings, its progress shows a bar.
        evaluate_with, evaluate_recipe: Networks and recipe of the final training (default: the setting's).
        patchify, theta, drop: As in `quantize`; each may be several values, of which every combination is tried ("none"
            drops no patches, so it stands once; so do all images and what a maker makes).
        workers: Processes (default: `workers_here`).
        compute: False trains nothing and gives the rows that are in the store.
    """
    setting = (setting or Setting()).suited_to(data.train)
    quiet = setting.replace(progress=False)
    check_evaluable(data.train, data.test)
    one_of("ratio_kind", ratio_kind, RATIO_KINDS)
    if not len(ratios) or not len(seeds):
        raise InputError(f"give at least one ratio and one seed; got {ratios!r} and {seeds!r}")
    recipe = get_recipe(evaluate_recipe or setting.recipe)
    evaluations = [quiet.replace(network=network, recipe=recipe) for network in evaluate_with or [setting.network]]
    several = [list(value) if isinstance(value, list | tuple) else [value] for value in (patchify, drop, theta)]

    def plans(label: str, source: Source) -> list[Patches]:
        chosen: list[Patches] = []
        for order, rule, fraction in itertools.product(*several):
            order = one_of("patchify", order_of(source) if order is None else order, ORDERS)
            if order == "none" or label == FULL or isinstance(source, Maker):
                patches: Patches = ("none", Patchify(), "image")
            else:
                patches = (order, Patchify(fraction, rule, autoencoder=autoencoder), ratio_kind)
            chosen += [patches] if patches not in chosen else []
        return chosen

    trials = [
        Trial(label, source, float(ratio), check_seed(seed), quiet, evaluation, patches)
        for seed in seeds
        for label, source in labeled(methods).items()
        for ratio in ([1.0] if label == FULL else ratios)
        for patches in plans(label, source)
        for evaluation in evaluations
    ]
    for trial in trials:  # what does not fit the images, as far as it is known before anything is trained
        check_ratio(trial.ratio, len(data.train))
        order, plan, kind = trial.patches
        if order != "none":
            stage = Patchifier(Pool(data.train), plan)
            if kind == "stored" and not isinstance(plan.theta, AdaptiveTheta):
                images_at(trial.ratio, stage.kept_fraction, len(data.train))
    workers = workers_here(str(quiet.device)) if workers is None else whole_number("workers", workers)
    results = _run(data, trials, workers, setting.progress, compute)
    classes = [row for _, per_class, _ in results for row in per_class]
    names = [_name(row, whole=any(len(values) > 1 for values in several)) for row, *_ in results]
    ids = {name: ids for name, (*_, ids) in zip(names, results, strict=True) if ids is not None}
    return Comparison(pd.DataFrame([row for row, *_ in results]), pd.DataFrame(classes), ids)


def _name(row: Mapping[str, Any], *, whole: bool) -> str:
    """Name of a selection, fit for a file; whole: with what was tried of patches."""
    text = f"{row['dataset']}-{row['method']}-{100 * row['ratio']:g}pct-seed{row['seed']}"
    text += f"-{row['patchify']}-{row['drop']}-{row['theta']:g}" if whole and row["patchify"] != "none" else ""
    return re.sub(r"[^\w.+-]+", "-", text)


def labeled(methods: Sources) -> dict[str, Source]:
    """Label -> method or maker, all checked."""
    if not isinstance(methods, Mapping):
        labels = [method if isinstance(method, str) else get_source(method).name for method in methods]
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"several methods are named {label!r}: give a mapping, label -> method")
        methods = dict(zip(labels, methods, strict=True))
    return {label: get_source("random" if label == FULL else method) for label, method in methods.items()}


def _run(data: DataSet, trials: Sequence[Trial], workers: int, progress: bool, compute: bool) -> list[Result]:
    """Results of the trials, in their order; without `compute` those that are in the store."""
    results = [_trial(data, trial, compute=False) for trial in trials]
    missing = [i for i, result in enumerate(results) if result is None] if compute else []
    # copy on write: PyTorch warns of arrays that cannot be written
    with joblib.parallel_config("loky", inner_max_num_threads=1, mmap_mode="c"):
        processes = joblib.Parallel(n_jobs=min(workers, max(1, len(missing))), return_as="generator")
        computed = processes(joblib.delayed(_trial)(data, trials[i], True, [*NETWORKS.values()]) for i in missing)
    with tqdm(total=len(missing), desc=f"trainings on {data.name}", disable=not progress) as bar:
        for i, result in zip(missing, computed, strict=True):
            results[i] = result
            bar.update(1)
    return [result for result in results if result is not None and result[0]]


def _trial(data: DataSet, trial: Trial, compute: bool, networks: Sequence[Architecture] = ()) -> Result | None:
    """Select or make, train, evaluate; None: not in the store and not computed; an empty row: it cannot be made.

    networks: what is registered where the comparison was asked for; a worker process knows the library's only.
    """
    for architecture in networks:
        NETWORKS.register(architecture)
    source, (order, plan, ratio_kind) = trial.source, trial.patches
    selected = select(data.train, trial.ratio, source, trial.seed, trial.setting, *trial.patches, compute=compute)
    if selected is None:
        return None
    if not selected.class_counts.any():
        return {}, [], None
    reached = evaluate(selected, data.test, trial.evaluation, trial.seed, compute=compute)
    if reached is None:
        return None
    n_images, recipe = int(selected.class_counts.sum()), get_recipe(trial.evaluation.recipe)
    budget, kind = n_images, "all" if trial.label == FULL else "selection"
    if isinstance(source, Maker):
        budget, kind = check_ratio(trial.ratio, len(data.train)), source.kind
    theta, drop = np.nan if isinstance(plan.theta, AdaptiveTheta) else float(plan.theta), plan.drop
    if order == "none":
        theta, drop = 0.0, "-"
    key: dict[str, Any] = {"dataset": data.name, "method": trial.label, "ratio": trial.ratio, "budget": budget}
    key |= {"seed": trial.seed, "network": trial.evaluation.network, "recipe": recipe.name}
    key |= {"patchify": order, "theta": theta, "drop": drop}
    row = key | {"kind": kind, "ratio_kind": ratio_kind, "stored_ratio": selected.stored_ratio, "n_images": n_images}
    row |= {"protocol": recipe.kind} | {name: getattr(reached, name) for name in REACHED}
    row |= {"selection_seconds": round(selected.seconds, 3), "training_seconds": round(reached.seconds, 3)}
    classes = {"class": data.train.class_names, "selected": selected.class_counts}
    classes |= {"recall": reached.recall, "missing": reached.missing}
    ids = None if kind == "all" else selected.ids
    return row, pd.DataFrame(key | classes).to_dict("records"), ids
