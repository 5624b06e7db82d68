"""TODO."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a call cost. seconds: by the clock; peak_mb: memory it took beyond what was in use before, in MB: of the
    GPU's on CUDA, else of this process, sampled every 10 ms."""

    seconds: float
    peak_mb: float


def measured(work: Callable[[], Result], *, device: str = "cpu") -> tuple[Result, Cost]:
    """The result of a call and what it cost."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before, started = torch.cuda.memory_allocated(device), time.perf_counter()
        result = work()
        torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        return result, Cost(seconds, (torch.cuda.max_memory_allocated(device) - before) / 2**20)
    process, done, samples = psutil.Process(), threading.Event(), []

    def sample() -> None:
        while not done.wait(0.01):
            samples.append(process.memory_info().rss)

    before, sampler = process.memory_info().rss, threading.Thread(target=sample, daemon=True)
    sampler.start()
    started = time.perf_counter()
    try:
        result = work()
    finally:
        seconds = time.perf_counter() - started
        done.set()
        sampler.join()
    return result, Cost(seconds, (max([before, process.memory_info().rss, *samples]) - before) / 2**20)
