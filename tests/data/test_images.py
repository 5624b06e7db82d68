"""Image sets, prepared data sets, and the front door `load_images`."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_lib.core.checks import one_of
from dqas_lib.core.errors import DataError, DqasError, InputError
from dqas_lib.core.files import read_npz, write_npz
from dqas_lib.data.image_set import ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.data.splits import stratified


def image_set(labels: np.ndarray, ids: np.ndarray | None = None, n_classes: int | None = None) -> ImageSet:
    labels = np.asarray(labels, dtype=np.int64)
    ids = np.arange(len(labels)) if ids is None else np.asarray(ids)
    images = np.zeros((len(labels), 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels)) % 256
    count = n_classes or (int(labels.max()) + 1 if len(labels) else 1)
    return ImageSet(images, labels, ids, tuple(f"c{label}" for label in range(count)))


# ---------------------------------------------------------------------------------------------- ImageSet


def test_digits_are_what_scikit_learn_has(digits):
    from sklearn.datasets import load_digits

    raw = load_digits()
    assert (len(digits.train), len(digits.test), digits.train.size) == (1201, 596, 8)
    assert not set(digits.train.ids) & set(digits.test.ids)
    for part in (digits.train, digits.test):
        assert np.array_equal(part.labels, raw.target[part.ids])
        assert np.array_equal(part.images[..., 1], np.round(raw.images[part.ids] * 255 / 16))
    assert digits.train.mirror is False
    assert digits.train.class_counts.tolist() == [119, 122, 118, 122, 121, 122, 121, 120, 116, 120]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((4, 2, 2), dtype=np.uint8)}, r"must be \(N, H, W, 3\) uint8; got \(4, 2, 2\)"),
        ({"images": np.zeros((4, 2, 2, 3))}, "float64"),
        ({"labels": np.zeros(3, dtype=np.int64)}, "need as many labels and ids"),
        ({"ids": np.arange(5)}, "need as many labels and ids"),
        ({"labels": np.array([0, 1, 2, 1])}, r"must lie in \[0, 2\); got 0 ... 2"),
        ({"labels": np.array([0, 1, -1, 1])}, r"got -1 ... 1"),
        ({"ids": np.array([0, 1, 2, 0])}, "ids must be unique"),
        ({"images": [[1]]}, r"must be \(N, H, W, 3\) uint8; got list"),
        ({"labels": np.array([0.0, 1, 0, 1])}, r"labels must be whole numbers, one per image; got \(4,\) float64"),
        ({"labels": np.array([True, False, True, True])}, "labels must be whole numbers"),
        ({"labels": None}, "labels must be whole numbers"),
        ({"labels": [[0], [1, 2], 0, 1]}, "labels must be whole numbers"),
        ({"labels": ["a", "b", "a", "b"]}, "labels must be whole numbers"),
        ({"labels": np.array([0, 1, 2**63, 1], dtype=np.uint64)}, r"got 0 ... 9223372036854775808"),
        ({"ids": [0.5, 1, 2, 3]}, "ids must be whole numbers or strings, one per image; got"),
        ({"ids": [("a",), 1, 2, 3]}, "ids must be whole numbers or strings"),
        ({"class_names": "ab"}, "class_names must be C texts; got 'ab'"),
        ({"class_names": (1, 2)}, "class_names must be C texts"),
        ({"class_names": None}, "class_names must be C texts"),
        ({"class_names": ("a", "a")}, "class_names must be distinct"),
        ({"mirror": "no"}, "mirror True or False; got '' and 'no'"),
        ({"name": 3}, "name must be a text"),
    ],
)
def test_an_image_set_that_disagrees_with_itself(change, message):
    fields = {
        "images": np.zeros((4, 2, 2, 3), dtype=np.uint8),
        "labels": np.array([0, 1, 0, 1]),
        "ids": np.arange(4),
        "class_names": ("a", "b"),
    }
    with pytest.raises(InputError, match=message):
        ImageSet(**{**fields, **change})


@pytest.mark.parametrize("kind", ["int8", "int32", "uint8", "uint32", "uint64", "list", "Series"])
def test_labels_and_ids_of_every_whole_kind_are_taken(kind):
    values, pixels = [0, 1, 0, 1], np.zeros((4, 2, 2, 3), dtype=np.uint8)
    made = {"list": lambda: values, "Series": lambda: pd.Series(values, dtype="int32")}
    labels = made.get(kind, lambda: np.array(values, dtype=kind))()
    ids = pd.Series(["d", "a", "c", "b"]) if kind == "Series" else np.array([7, 5, 6, 4], dtype="uint16")
    images = ImageSet(pixels, labels, ids, np.array(["a", "b"]))
    assert (images.labels.dtype, images.labels.tolist()) == (np.int64, values)
    assert images.ids.dtype.kind == "U" if kind == "Series" else images.ids.dtype == np.int64
    same = ImageSet(pixels, np.array(values), np.array(list(ids)), ("a", "b"))
    assert images.fingerprint() == same.fingerprint()
    assert images.select(list(ids)[::-1]).labels.tolist() == values[::-1]
    assert images.class_counts.tolist() == [2, 2]


def test_ids_find_their_images_in_any_order():
    images = image_set([0, 1, 0, 1, 2], ids=["d", "a", "c", "e", "b"])
    assert images.positions(["a", "e", "d"]).tolist() == [1, 3, 0]
    assert images.select(np.array(["c", "b"])).labels.tolist() == [0, 2]
    assert images.positions([]).tolist() == []
    with pytest.raises(InputError, match=r"'x' is not in the data set"):
        images.positions(["a", "x"])
    with pytest.raises(InputError, match="'' are strings; got 3"):
        images.positions([3])
    with pytest.raises(InputError, match="empty"):
        images.take(np.zeros(0, dtype=np.int64)).positions(["a"])


def test_the_fingerprint_sees_every_part():
    images = image_set([0, 1, 0, 1])
    other = [
        image_set([0, 1, 1, 1]),
        image_set([0, 1, 0, 1], ids=[0, 1, 2, 4]),
        image_set([0, 1, 0, 1], n_classes=3),
        images.take(np.array([1, 0, 2, 3])),
        images.with_images(images.images + 1),
    ]
    prints = {images.fingerprint(), *(one.fingerprint() for one in other)}
    assert len(prints) == 6
    assert image_set([0, 1, 0, 1]).fingerprint() == images.fingerprint()


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
)
def test_a_split_is_stratified_and_depends_on_ids_alone(counts, fraction, seed, order):
    labels = np.repeat(np.arange(len(counts)), counts)
    ids = np.arange(len(labels)) * 3
    held = stratified(labels, ids, fraction, seed)
    for label, count in enumerate(counts):
        taken = int(held[labels == label].sum())
        assert taken == (min(max(round(fraction * count), 1), count - 1) if count else 0)
    shuffled = np.array(order.sample(range(len(labels)), len(labels)), dtype=np.int64)
    again = stratified(labels[shuffled], ids[shuffled], fraction, seed)
    assert set(ids[shuffled][again]) == set(ids[held])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2, float("nan")])
def test_a_held_out_share_that_cannot_be(fraction):
    with pytest.raises(InputError, match="must lie between 0 and 1"):
        image_set([0, 0, 1, 1]).hold_out(fraction, 0)


# ---------------------------------------------------------------------------------------------- sources


@pytest.mark.parametrize("name", ["cifar", "no/such/folder", "", "a\0b", "\ud800"])
def test_an_unknown_source_names_the_known_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, DataError)) as caught:
        load_images(name, root=tmp_path)
    message = caught.value.one_line()
    if name == "cifar":
        given = (
            "unknown data set 'cifar' (did you mean 'cifar10'?): give one of digits, cifar10, cifar100, tiny-imagenet, "
        )
        assert given + "a prepared" in message


def test_the_nearest_name_is_suggested_whatever_its_case(tmp_path):
    with pytest.raises(InputError, match=r"unknown data set 'CIFAR10' \(did you mean 'cifar10'\?\)"):
        load_images("CIFAR10", root=tmp_path)
    with pytest.raises(InputError, match=r"fit is one of crop, pad; got 'corp' \(did you mean 'crop'\?\)"):
        one_of("fit", "corp", ("crop", "pad"))
    with pytest.raises(InputError, match=r"unknown data set 'zzz': give one of"):
        load_images("zzz", root=tmp_path)


def prepared(**changes: object) -> dict[str, np.ndarray]:
    arrays = {
        "train_images": np.arange(6 * 12, dtype=np.uint8).reshape(6, 2, 2, 3),
        "train_labels": np.array([0, 1, 0, 1, 2, 2]),
        "test_images": np.zeros((3, 2, 2, 3), dtype=np.uint8),
        "test_labels": np.array([0, 1, 2]),
        "class_names": np.array(["a", "b", "c"]),
        **changes,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def test_a_prepared_set_is_read(tmp_path):
    np.savez(tmp_path / "mine.npz", **prepared(train_index=np.array([10, 30, 20, 5, 4, 3]), note=np.array("kept")))
    found = load_images(tmp_path / "mine.npz")
    assert (found.name, found.train.name) == ("mine", "mine")
    assert found.train.ids.tolist() == [10, 30, 20, 5, 4, 3]
    assert found.test.ids.tolist() == [0, 1, 2]
    assert np.array_equal(found.train.images, prepared()["train_images"])
    assert found.train.mirror is True
    np.savez_compressed(tmp_path / "other.npz", **prepared(mirror=np.array(False)))
    assert load_images(tmp_path / "other.npz").train.mirror is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None, "class_names": None}, "lacks train_labels, class_names"),
        ({"train_images": np.zeros((6, 2, 2, 3))}, r"train part: images must be .* float64"),
        ({"train_images": np.zeros((6, 3, 3, 3), dtype=np.uint8)}, "of one size"),
        ({"test_images": np.zeros((0, 2, 2, 3), np.uint8), "test_labels": np.zeros(0, int)}, "some of each"),
        ({"train_labels": np.array([0, 1, 0, 1, 2])}, "6 images need as many labels"),
        ({"train_labels": np.array([0, 1, 0, 1, 2, 3])}, r"\[0, 3\); got 0 ... 3"),
        ({"train_labels": np.array([0, 1, 0, 1, 1, 1])}, r"1 of 3 classes have no training image \('c'\)"),
        ({"train_labels": np.array([0.0, 1, 0, 1, 2, 2])}, "whole numbers"),
        ({"train_labels": np.array([2**64 - 1, 1, 0, 1, 2, 2], dtype=np.uint64)}, r"got 0 ... 18446744073709551615"),
        ({"train_index": np.array([2**64 - 1, 1, 0, 3, 4, 5], dtype=np.uint64)}, r"ids must be below 2\^63"),
        ({"class_names": np.array([1, 2, 3])}, "list of strings; got int64"),
        ({"class_names": np.array(["a", "b", "a"])}, "distinct"),
        ({"class_names": np.array(["a", "", "b"])}, "not empty"),
        ({"class_names": np.array(["a", "b", "\ud800"])}, "no Unicode text"),
        ({"train_index": np.array(["a", "b", "c", "d", "e", "\udcff"])}, "train_index holds what is no Unicode"),
        ({"train_index": np.array([1, 2, 3, 4, 5, 5])}, "ids must be unique"),
        ({"train_index": np.linspace(0, 1, 6)}, r"whole numbers or strings, one per image; got \(6,\) float64"),
        ({"mirror": np.array([True, False])}, "one truth value"),
    ],
)
def test_a_prepared_set_that_is_not_one(tmp_path, changes, message):
    np.savez(tmp_path / "mine.npz", **prepared(**changes))
    with pytest.raises(DataError, match=message):
        load_images(tmp_path / "mine.npz")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "evil",))

    np.savez(tmp_path / "mine.npz", **prepared(class_names=np.array([Evil(), 1, 2], dtype=object)))
    with pytest.raises(DataError, match="holds pickled Python objects, which are never loaded"):
        load_images(tmp_path / "mine.npz")
    assert not (tmp_path / "evil").exists()


def in_a_folder(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_a_prepared_folder_is_mapped_not_read(tmp_path):
    arrays = prepared(train_index=np.array([10, 30, 20, 5, 4, 3]), mirror=np.array(False))
    np.savez(tmp_path / "mine.npz", **arrays)
    read, mapped = load_images(tmp_path / "mine.npz"), load_images(in_a_folder(tmp_path / "mine", arrays))
    assert (mapped.name, mapped.train.mirror) == ("mine", False)
    for part, other in ((mapped.train, read.train), (mapped.test, read.test)):
        assert isinstance(part.images, np.memmap)
        assert part.fingerprint() == other.fingerprint()
    few = mapped.train.select([30, 4])
    assert type(few.images) is np.ndarray
    assert np.array_equal(few.images, read.train.images[[1, 4]])
    with pytest.raises(ValueError, match="read-only"):
        mapped.train.images[0] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "cannot be mapped as a plain array"),
        (lambda file: file.write_bytes(file.read_bytes() + b"0"), r"claims \(6, 2, 2, 3\) uint8 and holds 201 bytes"),
        (lambda file: file.write_bytes(b""), "cannot be mapped as a plain array"),
        (lambda file: np.save(file, np.array([{}])), "cannot be mapped as a plain array"),
        (lambda file: np.save(file, np.zeros((0, 2, 2, 3), np.uint8)), "need as many labels"),
        (lambda file: np.save(file, np.zeros((6, 2, 2, 3))), r"train part: images must be .* float64"),
        (lambda file: file.with_name("train_labels.npy").unlink(), "lacks train_labels"),
        (lambda file: file.with_name("train_labels.npy").write_bytes(b"0"), "train_labels.npy is no array"),
    ],
)
def test_a_prepared_folder_that_is_damaged(tmp_path, change, message):
    change(in_a_folder(tmp_path / "mine", prepared()) / "train_images.npy")
    with pytest.raises(DataError, match=message):
        load_images(tmp_path / "mine")


def test_a_missing_prepared_set(tmp_path):
    with pytest.raises(DataError, match=r"no prepared data set at .*nothing\.npz"):
        load_images(tmp_path / "nothing.npz")


# ---------------------------------------------------------------------------------------------- .npz


def test_arrays_come_back_as_they_were_and_equal_arrays_give_equal_bytes(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.int16).reshape(2, 3),
        "file": np.array(["ä", "b"]),
        "empty": np.zeros((0, 4)),
        "scalar": np.array(3.5),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    }
    buffers = [io.BytesIO(), io.BytesIO()]
    for buffer in buffers:
        write_npz(buffer, arrays)
    assert buffers[0].getvalue() == buffers[1].getvalue()
    found = read_npz(buffers[0])
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    buffers[1].seek(0)
    with np.load(buffers[1]) as plain:
        assert np.array_equal(plain["a"], arrays["a"])
    assert list(read_npz(buffers[0], only=["a", "nothing"])) == ["a"]
    with pytest.raises(InputError, match=r"'x' holds Python objects"):
        write_npz(io.BytesIO(), {"x": np.array([None])})


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", "claims 8,000,000,000,000 bytes"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", r"claims the shape \(-1,\)"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "pickled Python objects"),
        ("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", "pickled Python objects"),
        ("{'descr': '<f8', 'shape': (1,), }", "cannot be read as an .npz"),
        ("__import__('os').system('true')", "cannot be read as an .npz"),
        ("(" * 9000, "cannot be read as an .npz"),
    ],
)
def test_an_array_header_that_lies(header, message):
    with pytest.raises(DataError, match=message):
        read_npz(archive({"a.npy": npy(header, b"\0" * 64)}), where="it")


def test_a_bomb_is_refused_with_its_size(tmp_path):
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2000000000,), }")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in ("a", "b", "c"):
            with file.open(f"{name}.npy", "w") as member:
                member.write(header)
                for _ in range(50):
                    member.write(bytes(10_000_000))
    with pytest.raises(DataError, match=r"would unpack [\d,]+ bytes to 1,500,000,\d+: refused as a decompression bomb"):
        read_npz(tmp_path / "bomb.npz")


def test_the_checksum_of_the_archive_is_compared():
    buffer = archive({"a.npy": npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100,), }", b"\7" * 100)})
    content = bytearray(buffer.getvalue())
    content[content.index(b"\7" * 100) + 50] = 8
    with pytest.raises(DataError, match="CRC"):
        read_npz(io.BytesIO(bytes(content)), where="it")


def test_two_arrays_of_one_name():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }"))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0,), }"))
    with pytest.raises(DataError, match="two arrays of one name"):
        read_npz(buffer, where="it")


# ---------------------------------------------------------------------------------------------- errors


def test_errors_are_one_line_unless_debugging(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.delenv("DQAS_DEBUG", raising=False)
    shown = []
    shell = InteractiveShell()
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, value, lines: shown.append(lines))
    shell.run_cell("from dqas_lib import load_images\nload_images('cifar')")
    assert len(shown[0]) == 1
    assert shown[0][0].startswith("InputError: unknown data set 'cifar' (did you mean 'cifar10'?): give one of digits")
    monkeypatch.setenv("DQAS_DEBUG", "1")
    shell.run_cell("load_images('cifar')")
    assert any("Traceback" in line for line in shown[1])
    assert any("in load_images" in line for line in shown[1])
    assert DataError("two\nlines").one_line() == "DataError: two lines"
    assert issubclass(DataError, DqasError)
