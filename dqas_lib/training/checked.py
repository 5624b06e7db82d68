"""`train`, `predict` and `extract` as callers from outside meet them: what they are given is checked first."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from dqas_lib.core.checks import check_fields, kinds
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training import features
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import TrainingResult
from dqas_lib.training.train import train as _train

Function = TypeVar("Function", bound=Callable[..., Any])


def check_evaluable(images: ImageSet, evaluate_on: ImageSet) -> None:
    """InputError unless what is learned from `images` can be judged on other ones: same classes, order and side."""
    for what in ("class_names", "size"):
        own, other = getattr(images, what), getattr(evaluate_on, what)
        if own != other:
            told = f"{what} {str(other)[:100]} where the training images have {str(own)[:100]}"
            raise InputError(f"the images to evaluate on have {told}: give a part of the same data set")


def _door(function: Function) -> Function:
    checked = kinds(function)
    checked.__module__ = __name__  # where it is found when it is sent to another process
    return checked


@_door
@functools.wraps(_train)
def train(images: ImageSet, **options: Any) -> TrainingResult:  # noqa: D103 - as `training.train.train`
    check_fields(options.get("setting") or Setting())
    if (evaluate_on := options.get("evaluate_on")) is not None:
        check_evaluable(images, evaluate_on)
    return _train(images, **options)


predict, extract = _door(features.predict), _door(features.extract)
