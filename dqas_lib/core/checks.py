"""TODO."""

import numpy as np

from dqas_lib.core.errors import InputError


def check_ratio(ratio: float, n_images: int) -> int:
    """Budget B = round(ratio * N) of an image ratio in (0, 1].

    Raises InputError when the ratio is no such number, or when it leaves no image.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float | np.integer | np.floating):
        raise InputError(f"ratio must be a number in (0, 1]; got {ratio!r}")
    if not 0 < ratio <= 1:  # also refuses NaN
        raise InputError(f"ratio must be a number in (0, 1]; got {ratio!r}")
    if n_images < 1:
        raise InputError("there are no images to select from")
    budget = round(float(ratio) * n_images)
    if budget < 1:
        raise InputError(f"ratio {ratio!r} of {n_images:,} images leaves no image: give at least {1 / n_images:.2g}")
    return budget
