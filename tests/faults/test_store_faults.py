"""Writes into the store and the prepared sets, cut at every step: the old state or the new one, never a mixture."""

import threading

import numpy as np
import pytest
from cuts import cuts, steps
from PIL import Image

from dqas_lib.core.files import write_atomically
from dqas_lib.core.store import Store
from dqas_lib.data.load import load_images

SETTINGS = {"seed": 0}


def result(value: int) -> dict[str, np.ndarray]:
    return {"values": np.full(2000, value), "name": np.array(f"result {value}")}


def value_of(found: dict[str, np.ndarray] | None) -> int | None:
    """The one value a result is made of; fails when it is a mixture."""
    if found is None:
        return None
    (value,) = np.unique(found["values"])
    assert str(found["name"]) == f"result {value}"
    return int(value)


def test_the_cuts_cut(tmp_path):
    """The injector itself: it sees each step, and a plain write is torn by it."""
    folder = tmp_path / "here"
    folder.mkdir()

    def plain() -> None:
        (folder / "a").write_bytes(b"12345678")
        (folder / "b").mkdir()
        (folder / "a").rename(folder / "b" / "c")

    assert steps(folder, plain) == ["open a", "os.mkdir b", "os.rename c"]
    seen = []
    for _ in cuts(folder, lambda: None, plain, power=True):
        seen.append({path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()})
    assert seen == [{}, {"a": b"1234"}, {"a": b"1234"}]


@pytest.mark.parametrize("power", [False, True])
def test_a_file_is_old_or_new(tmp_path, power):
    folder, file = tmp_path / "here", tmp_path / "here" / "deep" / "file"
    old, new = b"old" * 1000, b"new" * 3000
    tried = []
    for cut in cuts(folder, lambda: write_atomically(file, old), lambda: write_atomically(file, new), power=power):
        tried.append(file.read_bytes() == new)
        assert file.read_bytes() in (old, new), cut
    assert tried == sorted(tried)  # once new, new for good
    assert len(tried) >= 4
    assert tried[-1]


@pytest.mark.parametrize("power", [False, True])
def test_a_first_result_is_absent_or_whole(tmp_path, power):
    store = Store(tmp_path / "cache")
    seen = []
    for cut in cuts(store.root, lambda: None, lambda: store.put("s", SETTINGS, result(1), seconds=0), power=power):
        found = value_of(store.get("s", SETTINGS))
        assert found in (None, 1), cut
        assert (store.provenance("s", SETTINGS) is None) == (found is None), cut
        seen.append(found)
        again = store.load_or_compute("s", SETTINGS, lambda: result(2))
        assert value_of(again) == (2 if found is None else 1), cut
        assert value_of(store.get("s", SETTINGS)) == value_of(again), cut
    assert len(seen) >= 4
    assert seen[0] is None
    assert seen[-1] == 1


@pytest.mark.parametrize("power", [False, True])
def test_a_result_that_replaces_another_is_old_or_new(tmp_path, power):
    store = Store(tmp_path / "cache")

    def old() -> None:
        store.put("s", SETTINGS, result(1), seconds=1)

    def new() -> None:
        store.put("s", SETTINGS, result(2), seconds=2)

    seen = []
    for cut in cuts(store.root, old, new, power=power):
        found = value_of(store.get("s", SETTINGS))
        assert found in (1, 2), cut
        assert store.provenance("s", SETTINGS)["seconds"] == found, cut
        seen.append(found)
        new()  # tried once more, it succeeds
        assert value_of(store.get("s", SETTINGS)) == 2, cut
    assert seen == sorted(seen)
    assert set(seen) == {1, 2}


@pytest.mark.parametrize("power", [False, True])
def test_a_prepared_folder_is_absent_or_whole(tmp_path, power):
    for label in "ab":
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(5):
            pixels = np.full((8, 8, 3), 20 * number + ord(label), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / label / f"{number}.png")
    data = tmp_path / "data"
    wanted = load_images(tmp_path / "mine", root=tmp_path / "other", progress=False).train.fingerprint()

    def load() -> str:
        return load_images(tmp_path / "mine", root=data, progress=False).train.fingerprint()

    tried = 0
    for cut in cuts(data, lambda: None, load, power=power):
        assert load() == wanted, cut
        tried += 1
    assert tried >= 5


def test_readers_beside_a_writer_never_see_a_mixture(tmp_path):
    """Threads read a result while it is replaced over and over: each sees a whole one or none."""
    store = Store(tmp_path / "cache")
    store.put("s", SETTINGS, result(0), seconds=0)
    stop, wrong, reads = threading.Event(), [], [0]

    def read() -> None:
        while not stop.is_set():
            try:
                value_of(store.get("s", SETTINGS))
                reads[0] += 1
            except (AssertionError, ValueError) as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for value in range(1, 40):
        store.put("s", SETTINGS, result(value), seconds=0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert reads[0] > 10
    assert value_of(store.get("s", SETTINGS)) == 39
