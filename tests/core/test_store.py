"""The store: settings -> cached arrays, atomic, with provenance."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_lib.core import store as store_module
from dqas_lib.core.digests import canonical, digest, digest_of
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import read_npz, write_atomically, write_npz, writing_atomically, writing_folder
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
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_setting_stage_or_code_is_another_result(store, monkeypatch):
    keys = {store.key("features", SETTINGS), store.key("bins", SETTINGS), store.key("features", {"seed": 4})}
    keys |= {store.key("features", SETTINGS, [derive]), store.key("features", SETTINGS, [Store])}
    assert len(keys) == 5
    assert store.key("features", SETTINGS, [derive]) == store.key("features", SETTINGS, ["dqas_lib.core.seeds"])
    assert store.key("features", dict(reversed(SETTINGS.items()))) in keys
    monkeypatch.setattr(store_module, "digest_of", lambda *code: digest_of(*code) if code else "another library")
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
    with np.load(store.path("features", SETTINGS, [derive])) as plain:
        assert json.loads(str(plain["provenance"])) == found
    assert found["seconds"] >= 0
    assert store.provenance("features", {"seed": 9}) is None


def rewrite(path: Path, provenance: str | None) -> None:
    """The arrays of a result with another text for their provenance, or without any."""
    arrays = read_npz(path)
    del arrays["provenance"]
    with open(path, "wb") as file:
        write_npz(file, arrays if provenance is None else {**arrays, "provenance": np.array(provenance)})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no archive"),
        lambda path: rewrite(path, "{"),
        lambda path: rewrite(path, "[]"),
        lambda path: rewrite(path, "null"),
        lambda path: rewrite(path, '{"arrays": 3}'),
        lambda path: rewrite(path, "[" * 100_000),
        lambda path: rewrite(path, None),
        lambda path: rewrite(path, '{"arrays": ["numbers", "names"]}'),
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
    with pytest.raises(InputError, match="is called 'provenance', as the store calls its own: rename it"):
        store.put("features", SETTINGS, {"provenance": np.array([1])}, seconds=0)
    assert not [path for path in store.root.rglob("*") if path.is_file()]


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


def killed_while(action: str, folder: Path) -> None:
    """Runs the code in a process of its own, which kills itself in the middle of a write into this folder."""
    code = f"""
import os, signal, sys
from pathlib import Path
from dqas_lib.core.files import writing_atomically, writing_folder
with {action}(Path(sys.argv[1]) / "here") as there:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("action", ["writing_atomically", "writing_folder"])
def test_what_a_killed_process_left_is_cleared_by_the_next_write(tmp_path, action):
    killed_while(action, tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".here.")
    mine = tmp_path / ".here.tmp"  # no name of ours
    mine.write_bytes(b"x")
    with writing_folder(tmp_path / "other") as folder:  # and what is being written stays
        assert not left.exists()
        write_atomically(tmp_path / "file", b"x")
        assert folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".here.tmp", "file", "other"]


def test_what_another_machine_left_is_cleared_after_a_day(store):
    folder = store.path("features", SETTINGS).parent
    folder.mkdir(parents=True)
    for name, age in ((".a.npz.00000000-1-0123456789ab.tmp", 90_000), (".b.npz.00000000-1-0123456789ab.tmp", 10)):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (time.time() - age,) * 2)
    store.put("features", SETTINGS, result(), seconds=0)
    assert [path.name for path in folder.iterdir() if path.suffix == ".tmp"] == [".b.npz.00000000-1-0123456789ab.tmp"]


def test_a_link_a_pipe_or_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("link", "broken", "pipe", "folder"):
        with pytest.raises(DataError, match=rf"{name} cannot be written .* is no regular file\): give another path"):
            write_atomically(tmp_path / name, b"new")
    with pytest.raises(DataError, match="is no regular file"):
        write_atomically(Path("/dev/null"), b"new")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"old"


def test_temporary_names_cannot_be_foreseen(tmp_path):
    names = set()
    for _ in range(3):
        with writing_atomically(tmp_path / "file"):
            (temporary,) = (path for path in tmp_path.iterdir() if path.suffix == ".tmp")
            names.add(temporary.name)
    assert len(names) == 3


@pytest.mark.parametrize("root", [None, 3, b"x", "a\0b", "x" * 5000])
def test_a_root_that_is_no_path(root):
    with pytest.raises(InputError, match=r"the root of a store .*(must be a text or a path|is no path)"):
        Store(root)


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
