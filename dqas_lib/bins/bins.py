"""DQ's recursive bins of every class [DQ].

DQ fills a bin of n/N images greedily by GraphCut, removes them from the pool and starts again with nothing selected:
early bins are dense, late ones sparse.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from tqdm.auto import tqdm

from dqas_lib.bins.graph_cut import TIE, bin_size, greedy_graph_cut
from dqas_lib.bins.on_gpu import recursive_bins_on_device
from dqas_lib.core.checks import whole_number
from dqas_lib.core.errors import InputError
from dqas_lib.training.features import check_features, unit_rows


@dataclass(frozen=True, eq=False)
class Bins:
    """(N,) int64 bin numbers within the class, 0 the densest, and greedy ranks within the bin; n_bins as asked for."""

    bin: np.ndarray
    rank: np.ndarray
    n_bins: int

    def order(self, members: np.ndarray) -> np.ndarray:
        """The given positions (of one class) in greedy order: bin by bin, rank by rank."""
        return members[np.lexsort((self.rank[members], self.bin[members]))]


def fill_bins(n: int, n_bins: int, pick: Callable[[np.ndarray, int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Bins of one class of n images: (n,) bin numbers and (n,) ranks within the bin.

    With fewer images than bins every image is a bin of its own. pick: of the positions that are left and the size of a
    bin, which places among them fill it, in order.
    """
    whole_number("n_bins", n_bins)
    left = np.arange(n)
    numbers, ranks = np.empty((2, n), dtype=np.int64)
    for number in range(min(n_bins, n)):
        order = pick(left, bin_size(n, n_bins, number))
        numbers[left[order]] = number
        ranks[left[order]] = np.arange(len(order))
        left = np.delete(left, order)
    return numbers, ranks


def recursive_bins(features: np.ndarray, n_bins: int, *, lambda_val: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Recursive GraphCut bins of one class, by (n, d) unit rows; see `fill_bins` [DQ]."""
    return fill_bins(
        len(features), n_bins, lambda left, size: greedy_graph_cut(features[left], size, lambda_val=lambda_val)
    )


def make_bins(
    features: np.ndarray | torch.Tensor,
    labels: np.ndarray,
    n_bins: int = 10,
    *,
    lambda_val: float = 1.0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> Bins:
    """Recursive GraphCut bins of every class [DQ: 10 bins].

    Args:
        features: (N, d), scaled to unit rows here.
        lambda_val: Weight of the first sum of the gain.
        device: Features on a CUDA device, or device="cuda", are cut there (the same float64 scores and tie rule). On a
            CPU as many classes are cut at once as the BLAS has threads, or where `joblib.parallel_config` says, on the
            workers of a Dask client for instance; the result does not depend on it.

    Raises:
        InputError: For NaN or infinite features, or labels that do not fit them.
    """
    whole_number("n_bins", n_bins)
    if len(features) != len(labels):
        raise InputError(f"{len(features)} features need as many labels; got {len(labels)}")
    where = features.device if device is None and isinstance(features, torch.Tensor) else device or "cpu"
    if str(where) != "cpu":
        on_device = recursive_bins_on_device(features, labels, n_bins, lambda_val=lambda_val, tie=TIE, device=where)
        return Bins(*on_device, n_bins)
    features = np.asarray(features)
    check_features(features)
    numbers, ranks = np.zeros((2, len(features)), dtype=np.int64)
    classes = np.unique(labels)
    at_once = max(1, min(len(classes), _blas_threads()))
    bar = tqdm(classes, desc="bins, class by class", disable=not progress, leave=False)
    units = (unit_rows(features[labels == label]) for label in bar)  # in a partial: see `dynamics.look`
    tasks = (joblib.delayed(partial(recursive_bins, unit, n_bins, lambda_val=lambda_val))() for unit in units)
    with threadpool_limits(1, "blas") if at_once > 1 else nullcontext():
        done = joblib.Parallel(at_once, prefer="threads")(tasks)
    for label, result in zip(classes, done, strict=True):
        numbers[labels == label], ranks[labels == label] = result
    return Bins(numbers, ranks, n_bins)


def _blas_threads() -> int:
    return max((library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"), default=1)
