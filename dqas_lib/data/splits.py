"""Stratified splits: labels and ids -> which samples are held out for validation or test."""

import numpy as np

from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import generator


def stratified(labels: np.ndarray, ids: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """(N,) bool: which samples are held out. Each class gives round(fraction * n_c) of them, drawn by `seed`.

    A class keeps at least one sample, and gives at least one when it has two or more.

    Args:
        labels: (N,) in [0, C).
        ids: (N,), unique: the draw depends on them, not on the order of the samples.
        fraction: In (0, 1); InputError otherwise.
        seed: Of the draw.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the held-out fraction must lie between 0 and 1; got {fraction!r}")
    held_out = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(np.bincount(labels) if len(labels) else []):
        wanted = min(max(round(fraction * count), 1), count - 1) if count else 0
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(ids[members], kind="stable")]
        held_out[generator(seed, "hold_out", label).permutation(members)[:wanted]] = True
    return held_out
