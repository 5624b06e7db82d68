"""Pilots of any method or maker, every training of them kept in the store."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dqas_lib.budget.sensitivity import Pilots
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
        images: What is selected from, or distilled.
        validation: What the trainings are evaluated on.
        method: As in `evaluate.select`: a method or a maker.
        ratios: Image ratios of the subsets.
        seeds: Paired: equal seeds mean equal initial weights and equal order of the data for every method.
        setting: Of the methods and of the trainings; its store keeps both.
        steps: Of a distillation (default: its own).
    """
    setting, source = setting or Setting(), get_source(method)
    if steps is not None and isinstance(source, Distillation):
        source = dataclasses.replace(source, steps=steps)
    subsets = [[select(images, ratio, source, seed, setting) for ratio in ratios] for seed in seeds]
    runs = [[evaluate(one, validation, setting, seed) for one in row] for seed, row in zip(seeds, subsets, strict=True)]
    return Pilots(
        sizes=np.mean([[one.class_counts for one in row] for row in subsets], axis=0),
        errors=np.array([[run.missing for run in row] for row in runs]),
        recall=np.array([[run.recall for run in row] for row in runs]),
        accuracy=np.array([[run.accuracy for run in row] for row in runs]),
    )
