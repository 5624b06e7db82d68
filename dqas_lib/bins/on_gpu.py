"""Stage 3 on a GPU: the bins of all classes at once, pick by pick, without one look back at the host.

The same definition as `dqas_lib.bins`: float64 scores, gains within the tie go to the lowest position. The two agree
pick by pick unless the difference of two gains lies within rounding of the tie itself; the tests compare them.

Where the kernel matrices of the classes fit into a share of the device's memory they are made, a block of classes at a
time: one batched float64 product, after which a pick is a row of a matrix. Classes too large for that (n^2 numbers)
pay one matrix-vector product a pick instead, and memory stays O(n d). On CUDA a few dozen picks are one CUDA graph.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dqas_lib.bins.graph_cut import bin_size
from dqas_lib.core.errors import InputError

MEMORY_SHARE = 0.4  # of the device's free memory, for kernel matrices


CPU_BYTES = 1 << 28  # the same on a CPU, where this path is for tests


PICKS_A_GRAPH = 50


def recursive_bins_on_device(
    features: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    n_bins: int,
    *,
    lambda_val: float,
    tie: float,
    device: str | torch.device,
    kernel_bytes: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Bins of every class: (N,) bin numbers and (N,) ranks, int64.

    features: (N, d), scaled to unit rows here; labels: (N,) of any whole numbers; tie: gains closer than this times the
    pool's size are equal; kernel_bytes: at most this much memory for kernel matrices at a time (0: none are made).
    Raises InputError for NaN or infinite features.
    """
    device = torch.device(device)
    z = unit_rows_on(features, device)
    labels = torch.as_tensor(labels, device=device)
    _, of_class, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    members = torch.argsort(of_class, stable=True).split(counts.tolist())
    if kernel_bytes is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES / MEMORY_SHARE
        kernel_bytes = int(free * MEMORY_SHARE)
    numbers = torch.zeros(len(z), dtype=torch.int64, device=device)
    ranks = torch.zeros_like(numbers)
    for block in _blocks([len(rows) for rows in members], kernel_bytes):
        rows = [members[index] for index in block]
        sizes = torch.tensor([len(part) for part in rows], device=device)
        padded = torch.zeros(len(rows), int(sizes.max()), z.shape[1], dtype=torch.float64, device=device)
        for index, part in enumerate(rows):
            padded[index, : len(part)] = z[part]
        with_kernel = 8 * len(rows) * padded.shape[1] ** 2 <= kernel_bytes
        cut = _cut_with_kernel if with_kernel else _cut_without_kernel
        number, rank = cut(padded, sizes, n_bins, lambda_val, tie)
        for index, part in enumerate(rows):
            numbers[part], ranks[part] = number[index, : len(part)], rank[index, : len(part)]
        del padded, number, rank
    return numbers.cpu().numpy(), ranks.cpu().numpy()


def unit_rows_on(features: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """(N, d) float32 rows of length 1 on the device, zero rows left zero, as `features.unit_rows` makes them."""
    z = torch.as_tensor(features, device=device)
    if z.ndim != 2:
        raise InputError(f"features must be (N, d); got shape {tuple(z.shape)}")
    z = z.detach().float()
    bad = ~torch.isfinite(z).all(dim=1)
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise InputError(f"features of {int(bad.sum())} of {len(z)} images are NaN or infinite (first: row {first})")
    norms = z.double().square().sum(dim=1).sqrt()
    return z / torch.where(norms > 0, norms, 1.0).float()[:, None]


def _blocks(sizes: list[int], kernel_bytes: int) -> list[list[int]]:
    """Classes cut together: of similar size, since they are padded to the largest, as many as the memory holds."""
    blocks: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        largest = sizes[blocks[-1][0]] if blocks else 0
        if blocks and sizes[index] > 0.8 * largest and 8 * (len(blocks[-1]) + 1) * largest**2 <= kernel_bytes:
            blocks[-1].append(index)
        else:
            blocks.append([index])
    return blocks


@dataclass(eq=False)
class _Run:
    """One bin of several classes being filled. All tensors keep their place, so that a CUDA graph can be replayed.

    scores: (C, n) float64, -inf where a row is not in the pool; order: (C, n) int64, the pick number of each row of
    this bin, -1 elsewhere; size: (C,) picks wanted; tie: (C, 1); step: () int64; kernel: (C, n, n), or rows: (C, n, d).
    """

    scores: Tensor
    order: Tensor
    size: Tensor
    tie: Tensor
    step: Tensor
    kernel: Tensor | None
    rows: Tensor | None

    def __post_init__(self) -> None:
        self.places = torch.arange(self.scores.shape[1], device=self.scores.device)
        self.classes = torch.arange(len(self.scores), device=self.scores.device)

    def pick(self) -> None:
        """One pick of every class whose bin is not full; nothing here waits for the host."""
        near = self.scores >= self.scores.amax(dim=1, keepdim=True) - self.tie
        chosen = torch.where(near, self.places, self.scores.shape[1] - 1).amin(dim=1)
        at = chosen[:, None]
        wanted = (self.step < self.size)[:, None]
        self.order.scatter_(1, at, torch.where(wanted, self.step, self.order.gather(1, at)))
        if self.kernel is not None:
            self.scores.sub_(self.kernel[self.classes, chosen])
        else:
            row = self.rows[self.classes, chosen]
            self.scores.sub_(torch.bmm(self.rows, row[:, :, None])[:, :, 0])
        self.scores.scatter_(1, at, -torch.inf)
        self.step.add_(1)

    def fill(self, n_picks: int) -> None:
        """`n_picks` steps, on CUDA replayed from a graph."""
        graph = _graph_of(self) if self.scores.is_cuda and n_picks >= 2 * PICKS_A_GRAPH else None
        done = 0
        if graph is not None:
            for _ in range(n_picks // PICKS_A_GRAPH):
                graph.replay()
            done = n_picks // PICKS_A_GRAPH * PICKS_A_GRAPH
        for _ in range(n_picks - done):
            self.pick()


def _graph_of(run: _Run) -> "torch.cuda.CUDAGraph":
    """PICKS_A_GRAPH picks as one CUDA graph; the warm-up a capture needs is undone."""
    if getattr(run, "graph", None) is None:
        state = [tensor.clone() for tensor in (run.scores, run.order, run.step)]
        stream = torch.cuda.Stream(run.scores.device)
        stream.wait_stream(torch.cuda.current_stream(run.scores.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                run.pick()
        torch.cuda.current_stream(run.scores.device).wait_stream(stream)
        run.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(run.graph):
            for _ in range(PICKS_A_GRAPH):
                run.pick()
        for tensor, before in zip((run.scores, run.order, run.step), state, strict=True):
            tensor.copy_(before)
    return run.graph


def _cut_with_kernel(rows: Tensor, sizes: Tensor, n_bins: int, lambda_val: float, tie: float) -> tuple[Tensor, Tensor]:
    """(C, n) bin numbers and ranks of padded classes (C, n, d) float64, by way of their (C, n, n) inner products."""
    kernel = torch.bmm(rows, rows.transpose(1, 2))
    open_ = torch.arange(rows.shape[1], device=rows.device) < sizes[:, None]
    number_of = torch.full(open_.shape, -1, dtype=torch.int64, device=rows.device)
    rank_of = torch.zeros_like(number_of)
    run = _Run(
        scores=torch.empty(open_.shape, dtype=torch.float64, device=rows.device),
        order=torch.empty_like(number_of),
        size=torch.zeros_like(sizes),
        tie=torch.zeros(len(sizes), 1, dtype=torch.float64, device=rows.device),
        step=torch.zeros((), dtype=torch.int64, device=rows.device),
        kernel=kernel,
        rows=None,
    )
    largest = rows.shape[1]
    for number in range(min(n_bins, largest)):
        start = 0.5 * lambda_val * torch.bmm(kernel, open_.double()[:, :, None])[:, :, 0]
        run.scores.copy_(torch.where(open_, start, -torch.inf))
        run.tie.copy_((tie * open_.sum(dim=1).clamp(min=1))[:, None])
        run.size.copy_(bin_size(sizes, n_bins, number))
        run.order.fill_(-1)
        run.step.zero_()
        run.fill(bin_size(largest, n_bins, number))
        found = run.order >= 0
        number_of = torch.where(found, number, number_of)
        rank_of = torch.where(found, run.order, rank_of)
        open_ = open_ & ~found
    return number_of, rank_of


def _cut_without_kernel(
    rows: Tensor, sizes: Tensor, n_bins: int, lambda_val: float, tie: float
) -> tuple[Tensor, Tensor]:
    """The same of classes too large for n^2 numbers, one class after the other; the pool shrinks with every bin."""
    number_of = torch.zeros(rows.shape[:2], dtype=torch.int64, device=rows.device)
    rank_of = torch.zeros_like(number_of)
    for index, n in enumerate(sizes.tolist()):
        left = torch.arange(n, device=rows.device)
        for number in range(min(n_bins, n)):
            size = bin_size(n, n_bins, number)
            pool = rows[index, left][None]
            total = pool.sum(dim=1)
            run = _Run(
                scores=0.5 * lambda_val * torch.bmm(pool, total[:, :, None])[:, :, 0],
                order=torch.full((1, len(left)), -1, dtype=torch.int64, device=rows.device),
                size=torch.full((1,), size, device=rows.device),
                tie=torch.full((1, 1), tie * len(left), dtype=torch.float64, device=rows.device),
                step=torch.zeros((), dtype=torch.int64, device=rows.device),
                kernel=None,
                rows=pool,
            )
            run.fill(size)
            found = run.order[0] >= 0
            number_of[index, left[found]] = number
            rank_of[index, left[found]] = run.order[0][found]
            left = left[~found]
    return number_of, rank_of
