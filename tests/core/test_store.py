"""The store: settings -> cached arrays, atomic, with provenance."""

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_lib.core import store as store_module
from dqas_lib.core.digests import canonical, digest, digest_of
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import write_atomically, writing_atomically
from dqas_lib.core.seeds import derive
from dqas_lib.core.store import Store, default_root

SETTINGS = {"ratio": 0.1, "seed": 3, "names": ["a", "b"], "options": {"deep": None, "on": True}}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "cache")


def result(value: int = 1) -> dict[str, np.ndarray]:
    return {"numbers": np.arange(value, value + 5), "names": np.array(["x", "y"]), "share": np.array(0.25 * value)}


def same(found: dict[str, np.ndarray] | None, wanted: dict[str, np.ndarray]) -> bool:
    return (
        found is not None and list(found) == list(wanted) and all(np.array_equal(found[k], wanted[k]) for k in wanted)
    )


def test_a_result_is_computed_once(store):
    calls = []
    for _ in range(3):
        found = store.load_or_compute("features", SETTINGS, lambda: calls.append(1) or result())
        assert same(found, result())
    assert len(calls) == 1
    path = store.path("features", SETTINGS)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.stem + ".json", path.name]


def test_another_setting_stage_or_code_is_another_result(store, monkeypatch):
    keys = {store.key("features", SETTINGS), store.key("bins", SETTINGS), store.key("features", {"seed": 4})}
    keys |= {store.key("features", SETTINGS, [derive]), store.key("features", SETTINGS, [Store])}
    assert len(keys) == 5
    assert store.key("features", SETTINGS, [derive]) == store.key("features", SETTINGS, ["dqas_lib.core.seeds"])
    assert store.key("features", dict(reversed(SETTINGS.items()))) in keys
    monkeypatch.setattr(store_module, "library_digest", lambda: "another library")
    assert store.key("features", SETTINGS) not in keys
    assert store.key("features", SETTINGS, [derive]) in keys  # what it names decides, not the rest of the library


def test_a_result_of_foreign_code_is_not_kept(store):
    with pytest.raises(InputError, match=r"test_a_result_of_foreign_code.* is no code of dqas_lib"):
        store.load_or_compute("features", SETTINGS, result, code=[test_a_result_of_foreign_code_is_not_kept])


def test_provenance_says_how_a_result_came_about(store):
    store.load_or_compute("features", SETTINGS, result, device="cuda", code=[derive])
    assert store.provenance("features", SETTINGS) is None  # without `code` it is another result
    found = store.provenance("features", SETTINGS, [derive])
    assert found["settings"] == SETTINGS
    assert (found["stage"], found["device"], found["code"]) == ("features", "cuda", digest_of(derive))
    assert {"dqas_lib", "python", "numpy", "torch", "torchvision"} <= set(found["versions"])
    assert found["sha256"] == hashlib.sha256(store.path("features", SETTINGS, [derive]).read_bytes()).hexdigest()
    assert found["seconds"] >= 0
    assert store.provenance("features", {"seed": 9}) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.with_suffix(".json").write_text("null"),
        lambda path: path.with_suffix(".json").write_text('{"sha256": 3}'),
        lambda path: path.with_suffix(".json").write_bytes(b"\xff\xfe"),
        lambda path: path.with_suffix(".json").write_text("[" * 100_000),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_a_damaged_result_counts_as_absent_and_is_made_anew(store, damage):
    store.load_or_compute("features", SETTINGS, result)
    damage(store.path("features", SETTINGS))
    assert store.get("features", SETTINGS) is None
    assert store.provenance("features", SETTINGS) is None
    if store.path("features", SETTINGS).is_dir():
        with pytest.warns(RuntimeWarning, match="'features' is not kept"):
            assert same(store.load_or_compute("features", SETTINGS, lambda: result(2)), result(2))
        return
    assert same(store.load_or_compute("features", SETTINGS, lambda: result(2)), result(2))
    assert same(store.get("features", SETTINGS), result(2))


def test_an_npz_whose_checksum_is_right_but_which_is_none(store):
    store.load_or_compute("features", SETTINGS, result)
    path = store.path("features", SETTINGS)
    path.write_bytes(b"no archive")
    path.with_suffix(".json").write_text(json.dumps({"sha256": hashlib.sha256(b"no archive").hexdigest()}))
    assert store.get("features", SETTINGS) is None


def test_a_full_disk_loses_no_result(store, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match=r"'features' is not kept: .*No space left on device.*set DQAS_DATA"):
        found = store.load_or_compute("features", SETTINGS, result)
    assert same(found, result())
    assert [file.name for file in store.root.rglob("*") if file.is_file()] == []
    with pytest.raises(DataError, match="cannot be written"):
        store.put("features", SETTINGS, result(), seconds=0)


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        Store(tmp_path / "cache").put("features", SETTINGS, result(), seconds=0)
    assert (tmp_path / "cache").read_text() == "in the way"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "plain JSON"),
        ({"a": float("inf")}, "plain JSON"),
        ({"a": np.float32(1)}, "plain JSON"),
        ({"a": {1: 2}}, "strings as keys; got 1"),
        ([{None: 1}], "strings as keys; got None"),
        ({"a": {"b", "c"}}, "plain JSON"),
    ],
)
def test_settings_that_json_has_no_word_for(value, message):
    with pytest.raises(InputError, match=message):
        canonical(value)


@pytest.mark.parametrize("stage", ["", "../out", "a/b", ".hidden", "a\0b", "a\\b"])
def test_a_stage_that_is_no_plain_name(store, stage):
    with pytest.raises(InputError, match="a stage is named by letters"):
        store.path(stage, SETTINGS)


def test_objects_are_refused_before_they_are_written(store):
    with pytest.raises(InputError, match="'x' holds Python objects"):
        store.put("features", SETTINGS, {"x": np.array([{}])}, seconds=0)
    assert not store.root.exists()


numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(first=st.dictionaries(st.text(), json_values, max_size=3), second=st.dictionaries(st.text(), json_values))
def test_settings_have_equal_texts_if_and_only_if_they_are_equal_json(first, second):
    assert (canonical(first) == canonical(second)) == (
        json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    )
    assert json.loads(canonical(first)) == first


def test_the_parts_of_a_digest_do_not_run_together():
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("ä") == digest("ä".encode())
    assert len(digest("x")) == 20


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.json", b"old")

    def fail() -> None:
        with writing_atomically(tmp_path / "a.json") as file:
            file.write(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"old")]


def test_leftovers_of_a_killed_process_are_cleared_away(store):
    folder = store.path("features", SETTINGS).parent
    folder.mkdir(parents=True)
    for name, age in ((".old.npz.1.2.tmp", 90_000), (".new.npz.1.2.tmp", 10), ("mine.tmp", 90_000)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    store.put("features", SETTINGS, result(), seconds=0)
    left = {path.name for path in folder.iterdir() if path.suffix == ".tmp"}
    assert left == {".new.npz.1.2.tmp", "mine.tmp"}


def test_where_data_lives(tmp_path, monkeypatch):
    monkeypatch.delenv("DQAS_DATA", raising=False)
    (tmp_path / "kit" / "notebooks").mkdir(parents=True)
    (tmp_path / "kit" / "environment.yml").touch()
    monkeypatch.chdir(tmp_path / "kit" / "notebooks")
    assert default_root() == tmp_path / "kit" / "data"
    monkeypatch.chdir(tmp_path)
    assert default_root() == tmp_path / "data"
    monkeypatch.setenv("DQAS_DATA", "/elsewhere")
    assert default_root() == Path("/elsewhere")
    assert Store.default().root == Path("/elsewhere/cache")


def test_a_root_given_as_text(tmp_path):
    Store(str(tmp_path / "cache")).put("features", SETTINGS, result(), seconds=0)
    assert Store(tmp_path / "cache").get("features", SETTINGS) is not None
