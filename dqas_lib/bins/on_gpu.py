"""Stage 3 on a GPU: the bins of all classes at once, pick by pick, without one look back at the host.

The same definition as `bins`: float64 scores, gains within the tie go to the lowest position. The two agree unless the
difference of two gains lies within rounding of the tie itself.

Where the kernel matrices of the classes fit into a fraction of the device's memory they are made, a block of classes at
a time: one batched float64 product, after which a pick is a row of a matrix. Classes too large for that (n^2 numbers)
pay one matrix-vector product per pick instead, and memory stays O(n d). On CUDA a few dozen picks are one CUDA graph.
"""

import numpy as np
import torch
from torch import Tensor

from dqas_lib.bins.graph_cut import bin_size
from dqas_lib.training.features import check_features

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
    """(N,) bin numbers and (N,) ranks of the recursive bins of every class, int64; arguments as in `make_bins`.

    tie: gains closer than this times the pool's size are equal; kernel_bytes: for kernel matrices at a time (0: none).
    """
    device = torch.device(device)
    z = unit_rows_on(features, device)
    labels = torch.as_tensor(labels, device=device)
    _, of_class, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    members = torch.argsort(of_class, stable=True).split(counts.tolist())
    if kernel_bytes is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES / MEMORY_SHARE
        kernel_bytes = int(free * MEMORY_SHARE)
    numbers, ranks = torch.zeros((2, len(z)), dtype=torch.int64, device=device)
    for block in _blocks([len(rows) for rows in members], kernel_bytes):
        rows = [members[index] for index in block]
        sizes = torch.tensor([len(part) for part in rows], device=device)
        padded = torch.zeros(len(rows), int(sizes.max()), z.shape[1], dtype=torch.float64, device=device)
        for own, part in zip(padded, rows, strict=True):
            own[: len(part)] = z[part]
        with_kernel = 8 * len(rows) * padded.shape[1] ** 2 <= kernel_bytes
        number, rank = _cut(padded, sizes, n_bins, lambda_val, tie, with_kernel=with_kernel)
        for index, part in enumerate(rows):
            numbers[part], ranks[part] = number[index, : len(part)], rank[index, : len(part)]
        del padded, number, rank
    return numbers.cpu().numpy(), ranks.cpu().numpy()


def unit_rows_on(features: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """(N, d) float32 rows of length 1 on the device, zero rows left zero, as `features.unit_rows` makes them."""
    z = torch.as_tensor(features, device=device).detach().float()
    check_features(z)
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


class _Run:
    """Bins of several classes being filled. All tensors keep their place, so that a CUDA graph can be replayed.

    rows: (C, n, d) float64, or with `is_kernel` their inner products (C, n, n); scores: (C, n) float64, -inf where a
    row is not in the pool; order: (C, n) int64, the pick number of each row of this bin, -1 elsewhere; size: (C,) picks
    wanted; tie: (C, 1); step: () int64.
    """

    def __init__(self, rows: Tensor, *, is_kernel: bool) -> None:
        (n_classes, n), device = rows.shape[:2], rows.device
        self.rows, self.is_kernel = rows, is_kernel
        self.scores = torch.empty(n_classes, n, dtype=torch.float64, device=device)
        self.order = torch.empty(n_classes, n, dtype=torch.int64, device=device)
        self.size = torch.zeros(n_classes, dtype=torch.int64, device=device)
        self.tie = torch.zeros(n_classes, 1, dtype=torch.float64, device=device)
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.places, self.classes = torch.arange(n, device=device), torch.arange(n_classes, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def start(self, left: Tensor, size: Tensor, lambda_val: float, tie: float) -> None:
        """Begin a bin of `size` (C,) images out of those that are `left` (C, n) bool."""
        total = left.double()[:, :, None]
        if not self.is_kernel:
            total = torch.bmm(self.rows.transpose(1, 2), total)
        start = 0.5 * lambda_val * torch.bmm(self.rows, total)[:, :, 0]
        self.scores.copy_(torch.where(left, start, -torch.inf))
        self.tie.copy_((tie * left.sum(dim=1).clamp(min=1))[:, None])
        self.size.copy_(size)
        self.order.fill_(-1)
        self.step.zero_()

    def pick(self) -> None:
        """One pick of every class whose bin is not full; nothing here waits for the host."""
        near = self.scores >= self.scores.amax(dim=1, keepdim=True) - self.tie
        picked = torch.where(near, self.places, self.scores.shape[1] - 1).amin(dim=1)
        at = picked[:, None]
        wanted = (self.step < self.size)[:, None]
        self.order.scatter_(1, at, torch.where(wanted, self.step, self.order.gather(1, at)))
        row = self.rows[self.classes, picked]
        self.scores.sub_(row if self.is_kernel else torch.bmm(self.rows, row[:, :, None])[:, :, 0])
        self.scores.scatter_(1, at, -torch.inf)
        self.step.add_(1)

    def fill(self, n_picks: int) -> None:
        """`n_picks` steps, on CUDA replayed from a graph."""
        if self.scores.is_cuda and n_picks >= 2 * PICKS_A_GRAPH:
            self.graph = self.graph or self._captured()
            replays, n_picks = divmod(n_picks, PICKS_A_GRAPH)
            for _ in range(replays):
                self.graph.replay()
        for _ in range(n_picks):
            self.pick()

    def _captured(self) -> torch.cuda.CUDAGraph:
        """PICKS_A_GRAPH picks as one CUDA graph; the warm-up a capture needs is undone."""
        state = [tensor.clone() for tensor in (self.scores, self.order, self.step)]
        stream = torch.cuda.Stream(self.scores.device)
        stream.wait_stream(torch.cuda.current_stream(self.scores.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.pick()
        torch.cuda.current_stream(self.scores.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(PICKS_A_GRAPH):
                self.pick()
        for tensor, before in zip((self.scores, self.order, self.step), state, strict=True):
            tensor.copy_(before)
        return graph


def _cut(
    rows: Tensor, sizes: Tensor, n_bins: int, lambda_val: float, tie: float, *, with_kernel: bool
) -> tuple[Tensor, Tensor]:
    """(C, n) bin numbers and ranks of padded classes (C, n, d) float64; without kernel matrices of one class only."""
    largest = rows.shape[1]
    places = torch.arange(largest, device=rows.device)
    left = places < sizes[:, None]
    number_of, rank_of = torch.zeros((2, *left.shape), dtype=torch.int64, device=rows.device)
    if with_kernel:
        run = _Run(torch.bmm(rows, rows.transpose(1, 2)), is_kernel=True)
    for number in range(min(n_bins, largest)):
        if not with_kernel:  # the matrix to multiply with shrinks with every bin
            places = left[0].nonzero()[:, 0]
            run = _Run(rows[:, places], is_kernel=False)
        run.start(left[:, places], bin_size(sizes, n_bins, number), lambda_val, tie)
        run.fill(bin_size(largest, n_bins, number))
        inside = run.order >= 0
        number_of[:, places] = torch.where(inside, number, number_of[:, places])
        rank_of[:, places] = torch.where(inside, run.order, rank_of[:, places])
        left[:, places] &= ~inside
    return number_of, rank_of
