"""Tables: tidy rows -> means with intervals, paired comparisons, files."""

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import psutil
from scipy import stats

from dqas_lib.errors import InputError
from dqas_lib.plots import run_folder
from dqas_lib.store import versions, write_atomically

Result = TypeVar("Result")


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its Student t interval; NaN half-width for fewer than two values."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise InputError("a mean needs at least one value; got none")
    if len(values) < 2:
        return float(values.mean()), math.nan
    half = stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def summarise(rows: pd.DataFrame, by: Sequence[str], value: str = "accuracy") -> pd.DataFrame:
    """One row a group: n, mean and half (of the 95 % interval over seeds) of `value`, in the order of appearance."""
    out = []
    for key, group in rows.groupby(list(by), sort=False):
        mean, half = mean_interval(group[value])
        out.append({**dict(zip(by, key, strict=True)), "n": len(group), "mean": mean, "half": half})
    return pd.DataFrame(out)


def paired(
    rows: pd.DataFrame, first: str, second: str, *, over: Sequence[str], by: str = "method", value: str = "accuracy"
) -> dict[str, float]:
    """Paired comparison first - second over rows equal in `over` (e.g. ["seed"]).

    Gives n, difference (mean), half (of its 95 % interval) and p (two-sided paired t test). Raises InputError when a
    pair is incomplete: means over different seeds are not compared.
    """
    table = rows.pivot(index=list(over), columns=by, values=value)
    for name in (first, second):
        if name not in table or table[name].isna().any() or len(table) == 0:
            raise InputError(f"no complete pairs of {first!r} and {second!r} over {', '.join(over)}")
    difference = (table[first] - table[second]).to_numpy()
    mean, half = mean_interval(difference)
    p = math.nan
    if len(difference) > 1:
        p = 1.0 if not difference.any() else float(stats.ttest_rel(table[first], table[second]).pvalue)
    return {"n": len(difference), "difference": mean, "half": half, "p": p}


def save(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """In a run, write the rows to tables/<name>.csv of the run; gives the rows back, to be shown."""
    folder = run_folder()
    if folder is not None:
        write_atomically(folder / "tables" / f"{name}.csv", rows.to_csv(index=False, lineterminator="\n").encode())
    return rows


def finish(values: Mapping[str, Any]) -> None:
    """A notebook's last call: in a run, write result.json, which says that the notebook got to its end.

    values: what the notebook found, as plain JSON values (NaN is refused).
    """
    folder = run_folder()
    if folder is None:
        return
    result = {"finished": True, "values": dict(values), "versions": versions()}
    try:
        content = json.dumps(result, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"finish() takes plain JSON values: {error}") from error
    write_atomically(folder / "result.json", content)


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
