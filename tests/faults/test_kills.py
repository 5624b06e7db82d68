"""kill -9 at random moments of saves and of writes into the store: nothing is lost, and nothing is left behind.

A forked process writes without end; it is killed, and what it said it had written must be there, whole. With the kills
of a reproduction's processes in test_faults.py there are 200 of them.
"""

import itertools
import os
import random
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
from test_compressed_faults import image_set, value_of

from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.store import Store

KILLS = {"save": 70, "store": 65}
WRITES = 5  # a kill comes within the time that so many writes take here


def written_until_killed(write: Callable[[int], object], seconds: float) -> int:
    """Fork a process that calls write(1), write(2) ... and kill it then; how many it had finished."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for number in itertools.count(1):
                write(number)
                os.write(writer, b".")
        finally:
            os._exit(1)  # never back into the tests
    os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer ended by itself: an error"
    with os.fdopen(reader, "rb") as told:
        return len(told.read())


def seconds_of(work: Callable[[], object]) -> float:
    """The least of three."""
    moments = [time.monotonic()]
    for _ in range(3):
        work()
        moments.append(time.monotonic())
    return float(np.diff(moments).min())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this kills a forked process, and this system has none")
def test_killed_saves(tmp_path):
    path, finished = tmp_path / "here" / "set", 0
    save_compressed(path, image_set(1))
    took = seconds_of(lambda: save_compressed(path, image_set(1), overwrite=True))
    for kill in range(KILLS["save"]):
        before = value_of(path)
        seconds = random.Random(f"save {kill}").uniform(0, WRITES * took)
        n = written_until_killed(
            lambda i, b=before: save_compressed(path, image_set((b + i) % 200), overwrite=True), seconds
        )
        assert value_of(path) in ((before + n) % 200, (before + n + 1) % 200), f"kill {kill} lost a set"
        finished += n
        save_compressed(path, image_set(1), overwrite=True)
        assert value_of(path) == 1
        assert [entry.name for entry in path.parent.iterdir()] == ["set"], f"kill {kill} left something behind"
    assert finished > KILLS["save"] // 5  # not all of them before the first write was done


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this kills a forked process, and this system has none")
def test_killed_writes_into_the_store(tmp_path):
    finished, first = 0, Store(tmp_path / "first")
    took = seconds_of(lambda: first.put("stage", {}, {"values": np.zeros(20_000)}, seconds=0.0))
    for kill in range(KILLS["store"]):
        store = Store(tmp_path / str(kill))

        def put(number: int, store: Store = store) -> None:
            store.put("stage", {"n": number}, {"values": np.full(20_000, number)}, seconds=0.0)

        n = written_until_killed(put, random.Random(f"store {kill}").uniform(0, WRITES * took))
        for number in range(1, n + 1):
            found = store.get("stage", {"n": number})
            assert found is not None, f"kill {kill} lost result {number} of {n}"
            assert found["values"].tobytes() == np.full(20_000, number).tobytes()
        put(n + 1)
        put(n + 2)
        names = {entry.name for entry in (store.root / "stage").iterdir()}
        assert names == {store.path("stage", {"n": number}).name for number in range(1, n + 3)}, f"kill {kill}"
        finished += n
    assert finished > KILLS["store"] // 5
