"""The batched bins (written for a GPU) equal those of the CPU, pick by pick, run here on CPU tensors."""

import numpy as np
import pytest
import torch
from clouds import cloud

from dqas_lib.bins.bins import make_bins
from dqas_lib.bins.graph_cut import TIE
from dqas_lib.bins.on_gpu import _blocks, recursive_bins_on_device, unit_rows_on
from dqas_lib.core.errors import InputError
from dqas_lib.training.features import unit_rows


@pytest.mark.parametrize("kind", ["normal", "relu", "duplicates", "grid"])
@pytest.mark.parametrize("kernel_bytes", [0, 300_000, 1 << 28], ids=["no kernel", "blocks of classes", "all at once"])
@pytest.mark.parametrize("lambda_val", [0.5, 1.0])
def test_every_bin_and_rank_equals_the_one_of_the_cpu(kind, kernel_bytes, lambda_val):
    labels = np.random.default_rng(1).choice(6, size=700, p=[0.3, 0.25, 0.25, 0.1, 0.09, 0.01]) * 3
    labels[:4] = 50  # a class with fewer images than bins
    x = cloud(700, 12, 2, kind).astype(np.float32)
    expected = make_bins(x, labels, 7, lambda_val=lambda_val)
    numbers, ranks = recursive_bins_on_device(
        x, labels, 7, lambda_val=lambda_val, tie=TIE, device="cpu", kernel_bytes=kernel_bytes
    )
    assert numbers.tolist() == expected.bin.tolist()
    assert ranks.tolist() == expected.rank.tolist()


def test_blocks_hold_classes_of_similar_size_within_the_memory():
    assert _blocks([100, 95, 40, 100, 39], 8 * 2 * 100**2) == [[0, 3], [1], [2, 4]]
    assert _blocks([500] * 3, 0) == [[0], [1], [2]]


def test_unit_rows_equal_the_ones_of_numpy():
    x = cloud(300, 9, 4, "grid").astype(np.float32)
    assert unit_rows_on(x, torch.device("cpu")).numpy() == pytest.approx(unit_rows(x), abs=6e-8)
    x[7, 2] = np.nan
    with pytest.raises(InputError, match=r"features of 1 of 300 images are NaN or infinite \(first: row 7\)"):
        unit_rows_on(x, torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["normal", "relu", "duplicates", "grid"])
def test_a_gpu_gives_the_bins_of_the_cpu(kind):
    labels = np.arange(3000) % 4
    x = cloud(3000, 32, 5, kind).astype(np.float32)
    expected = make_bins(x, labels, 5)
    for found in (make_bins(x, labels, 5, device="cuda"), make_bins(torch.from_numpy(x).cuda(), labels, 5)):
        assert found.bin.tolist() == expected.bin.tolist()
        assert found.rank.tolist() == expected.rank.tolist()
