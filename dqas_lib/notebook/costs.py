"""What a call costs: seconds and memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a call cost: seconds; MiB of the GPU, else of this process (every 10 ms), beyond those before."""

    seconds: float
    peak_mb: float


def measured(work: Callable[[], Result], *, device: str = "cpu") -> tuple[Result, Cost]:
    """The result of a call without arguments, and what it cost on a device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before, started = torch.cuda.memory_allocated(device), time.perf_counter()
        result = work()
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        return result, Cost(seconds, (torch.cuda.max_memory_allocated(device) - before) / 2**20)
    process, done = psutil.Process(), threading.Event()
    samples = [process.memory_info().rss]

    def sample() -> None:
        while not done.wait(0.01):
            samples.append(process.memory_info().rss)

    sampler, started = threading.Thread(target=sample, daemon=True), time.perf_counter()
    sampler.start()
    try:
        result = work()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        sampler.join()
    return result, Cost(seconds, (max([*samples, process.memory_info().rss]) - samples[0]) / 2**20)
