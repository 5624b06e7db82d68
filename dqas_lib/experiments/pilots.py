"""Pilots of any method or maker, every training of them kept in the store."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dqas_lib.budget.sensitivity import Pilots
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.evaluate import evaluate, select
from dqas_lib.experiments.makers import Distillation, Source, get_source
from dqas_lib.training.setting import Setting


def pilots(
    images: ImageSet,
    validation: ImageSet,
    method: str | Source,
    ratios: Sequence[float],
    seeds: Sequence[int],
    setting: Setting | None = None,
    *,
    steps: int | None = None,
) -> Pilots:
    """Train on subsets of several sizes, and read the error of each class on the validation images.

    Args:
        images: What is selected from.
        validation: What the trainings are evaluated on.
        method: As in `evaluate.select`.
        ratios: Image ratios of the subsets.
        seeds: Paired: equal seeds mean equal initial weights and equal order of the data for every method.
        setting: Of the methods and of the trainings; its store keeps both.
        steps: Of a distillation (default: its own).

    Raises:
        InputError: For what a maker cannot make of these images at one of the ratios.
    """
    setting, source = setting or Setting(), get_source(method)
    if steps is not None and isinstance(source, Distillation):
        source = dataclasses.replace(source, steps=steps)
    sizes, runs = [], []
    for seed in seeds:
        for ratio in ratios:
            subset = select(images, ratio, source, seed, setting)
            if subset is None or not subset.class_counts.any():
                raise InputError(f"{source.name!r} cannot be made at ratio {ratio:g} of {len(images):,} images")
            sizes.append(subset.class_counts)
            runs.append(evaluate(subset, validation, setting, seed))

    def table(values: list) -> np.ndarray:
        return np.reshape(values, (len(seeds), len(ratios), *np.shape(values)[1:]))

    return Pilots(
        sizes=table(sizes).mean(axis=0),
        errors=table([run.missing for run in runs if run]),
        recall=table([run.recall for run in runs if run]),
        accuracy=table([run.accuracy for run in runs if run]),
    )
