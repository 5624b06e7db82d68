"""Mutated image files, prepared sets, archives and store entries through the public entry points.

Each input ends in a result that keeps its promises or in one of the library's own errors, in one line, soon; never in
a foreign traceback, a warning, a crash or a hang. A seed that once failed is kept in FOUND, and is tried first.
"""

import gzip
import hashlib
import io
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import cifar10_archive, cifar100_archive, put_official, zip_folder
from mutate import mutated
from PIL import Image

from dqas_lib.core.errors import DqasError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DATA_SETS, DataSet, ImageSet
from dqas_lib.data.load import data_report, load_images

SECONDS = 10.0  # for one input, on a busy machine; the slowest measured takes 0.1

TIMES = int(os.environ.get("DQAS_FUZZ", "1"))  # DQAS_FUZZ=20 tries twenty times as many

# seeds of inputs that once ended in something else, by kind
FOUND: dict[str, list[int]] = {
    "prepared": [14],  # a text with a code point past the last one: SystemError
}


def check(run: Callable[[], object], what: str) -> object | None:
    """The result of `run`, or None when it raised one of the library's own errors, in time."""
    started = time.perf_counter()
    result, message = None, "a message of some length"
    try:
        result = run()
    except DqasError as error:
        message = error.one_line()
    except Exception as error:
        pytest.fail(f"{what}: {type(error).__name__}: {error}")
    assert 20 < len(message) < 20_000, what
    assert "\n" not in message, what
    assert time.perf_counter() - started < SECONDS, what
    return result


def check_set(found: object | None, what: str) -> bool:
    if found is None:
        return False
    assert isinstance(found, DataSet), what
    for part in (found.train, found.test):
        assert part.images.dtype == np.uint8, what
        assert len(part.images) == len(part.labels) == len(part.ids) > 0, what
        assert part.labels.max() < part.n_classes, what
        assert len(part.fingerprint()) == 20, what
    return True


def seeds(kind: str, count: int) -> list[int]:
    return [*FOUND.get(kind, []), *range(count * TIMES)]


# ---------------------------------------------------------------------------------------------- image files


def files_of_every_kind(pixels: np.ndarray) -> dict[str, bytes]:
    """One picture in every format and mode that is read."""
    image = Image.fromarray(pixels)
    gray = image.convert("L")
    clear = image.copy()
    clear.putalpha(gray)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    kinds: list[tuple[str, Image.Image, str, dict]] = [
        ("rgb.png", image, "PNG", {"exif": exif}),
        ("gray.png", gray, "PNG", {}),
        ("bilevel.png", gray.convert("1"), "PNG", {}),
        ("palette.png", image.quantize(16), "PNG", {"transparency": 3}),
        ("alpha.png", clear, "PNG", {}),
        ("la.png", clear.convert("LA"), "PNG", {}),
        ("deep.png", Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG", {}),
        ("interlaced.png", image, "PNG", {"interlace": 1}),
        ("animated.png", image, "PNG", {"save_all": True, "append_images": [gray.convert("RGB")]}),
        ("plain.jpg", image, "JPEG", {"exif": exif, "quality": 80}),
        ("gray.jpg", gray, "JPEG", {}),
        ("progressive.jpg", image, "JPEG", {"progressive": True}),
        ("cmyk.jpg", image.convert("CMYK"), "JPEG", {}),
        ("plain.webp", image, "WEBP", {"exif": exif.tobytes()}),
        ("lossless.webp", clear, "WEBP", {"lossless": True}),
        ("animated.webp", image, "WEBP", {"save_all": True, "append_images": [gray.convert("RGB")]}),
        ("plain.bmp", image, "BMP", {}),
        ("palette.bmp", image.quantize(16), "BMP", {}),
        ("plain.gif", image.quantize(16), "GIF", {"transparency": 2}),
        ("animated.gif", image, "GIF", {"save_all": True, "append_images": [gray.convert("RGB")]}),
    ]
    contents = {}
    for name, picture, kind, options in kinds:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        contents[name] = buffer.getvalue()
    return contents


@pytest.fixture(scope="module")
def pictures(digits) -> dict[str, bytes]:
    pixels = np.kron(digits.train.images[5], np.ones((3, 2, 1), dtype=np.uint8))  # 24 x 16
    pixels[..., 1] = pixels[::-1, :, 1]
    return files_of_every_kind(pixels)


@pytest.mark.filterwarnings("error")
def test_mutated_pictures(pictures, digits, tmp_path):
    """800 mutated pictures in 20 folders: the good ones are read, the others are in the list, none is lost."""
    tried = read = 0
    names = sorted(pictures)
    numbers = seeds("picture", 800)
    for start in range(0, len(numbers), 40):
        folder = tmp_path / f"f{start}"
        for label in "ab":
            (folder / label).mkdir(parents=True)
            for number in range(4):
                Image.fromarray(digits.train.images[number + 4 * (label == "b")]).save(folder / label / f"{number}.png")
        mine = []
        for seed in numbers[start : start + 40]:
            name = names[seed % len(names)]
            file = folder / "a" / f"{seed}-{name}"
            file.write_bytes(mutated(pictures[name], seed))
            mine.append(f"a/{file.name}")
        fit = ("crop", "pad")[start // 40 % 2]
        what = f"pictures, seeds {start}..."
        found = check(
            lambda folder=folder, fit=fit: load_images(
                folder, root=tmp_path / "data", size=12, fit=fit, on_error="skip", progress=False
            ),
            what,
        )
        assert check_set(found, what)
        ids = {*found.train.ids.tolist(), *found.test.ids.tolist()}
        out = {item["file"] for item in found.train.provenance["left_out"]}
        assert not ids & out, what
        assert set(mine) <= ids | out, what
        assert len(ids) + len(out) == 48, what
        stopped = check(
            lambda folder=folder, fit=fit: load_images(
                folder, root=tmp_path / "data", size=12, fit=fit, progress=False
            ),
            what,
        )
        assert (stopped is None) == bool(out), what
        report = data_report(folder, root=tmp_path / "data", size=12, fit=fit, progress=False)
        assert len(report.findings()) >= 9
        tried += len(mine)
        read += len(ids) - 8
    assert tried >= 800
    assert 0.05 * tried < read < 0.95 * tried  # the mutations do harm, and not always


def test_unmutated_pictures_are_all_read(pictures, tmp_path):
    """The other half of the promise: 20 files of every kind, none of them a fault."""
    for label in "ab":
        (tmp_path / "mine" / label).mkdir(parents=True)
        for name, content in pictures.items():
            # a byte after the end of a picture is no fault, and makes b's files others than a's
            (tmp_path / "mine" / label / name).write_bytes(content + (b"\n" if label == "b" else b""))
    found = load_images(tmp_path / "mine", root=tmp_path / "data", size=12, progress=False)
    assert len(found.train) + len(found.test) == 40


# ---------------------------------------------------------------------------------------------- prepared sets


@pytest.fixture(scope="module")
def prepared_sets(digits) -> list[bytes]:
    arrays = {
        "train_images": digits.train.images[:30],
        "train_labels": digits.train.labels[:30],
        "train_index": digits.train.ids[:30],
        "test_images": digits.test.images[:10],
        "test_labels": digits.test.labels[:10],
        "class_names": np.array(digits.train.class_names),
        "mirror": np.array(False),
    }
    contents = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        contents.append(buffer.getvalue())
    return contents


def in_one_member(content: bytes, seed: int) -> bytes:
    """One array of an .npz mutated inside an archive that is whole: checksums agree, headers lie."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = sorted(members)[seed % len(members)]
    members[name] = mutated(members[name], seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for each, data in members.items():
            archive.writestr(each, data)
    return buffer.getvalue()


@pytest.mark.filterwarnings("error")
def test_mutated_prepared_sets(prepared_sets, tmp_path):
    read = 0
    for seed in seeds("prepared", 300):
        content = prepared_sets[seed % 2]
        path = tmp_path / f"{seed}.npz"
        path.write_bytes(in_one_member(content, seed) if seed % 3 else mutated(content, seed))
        what = f"prepared set, seed {seed}"
        read += check_set(check(lambda path=path: load_images(path), what), what)
    assert 0 < read < 250 * TIMES


# ---------------------------------------------------------------------------------------------- archives


@pytest.fixture(scope="module")
def small(digits) -> ImageSet:
    """30 pictures of 32 px, of three classes."""
    some = digits.train.take(np.flatnonzero(digits.train.labels < 3)[:30])
    images = np.kron(some.images, np.ones((1, 4, 4, 1), dtype=np.uint8))
    return ImageSet(images, some.labels, np.arange(30), ("zero", "one", "two"), "small")


@pytest.fixture(scope="module")
def official_archives(small, tmp_path_factory) -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Small archives in the three official layouts."""
    top = tmp_path_factory.mktemp("archives")
    test = small.take(np.arange(6))
    folder = top / "tiny-imagenet-200"
    lines = []
    for position, (image, label) in enumerate(zip(small.images, small.labels, strict=True)):
        wnid = f"n{label:08d}"
        place = folder / "train" / wnid / "images" if position >= 6 else folder / "val" / "images"
        place.mkdir(parents=True, exist_ok=True)
        name = f"{wnid}_{position}.JPEG" if position >= 6 else f"val_{position}.JPEG"
        Image.fromarray(image).resize((64, 64)).save(place / name, "JPEG")
        if position < 6:
            lines.append(f"{name}\t{wnid}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"n{label:08d}\n" for label in range(3)))
    return {
        "cifar10": (cifar10_archive(top / "a.tar.gz", small, test).read_bytes(), (30, 6)),
        "cifar100": (cifar100_archive(top / "b.tar.gz", small, test).read_bytes(), (30, 6)),
        "tiny-imagenet": (zip_folder(top / "c.zip", folder).read_bytes(), (24, 6)),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet"])
def test_mutated_archives(official_archives, tmp_path, monkeypatch, name):
    """Archives that pass the checksum (ours is put in its place) and are damaged all the same."""
    content, counts = official_archives[name]
    filename = DATA_SETS[name].filename
    base = content if name == "tiny-imagenet" else gzip.decompress(content)
    read = 0
    for seed in seeds(name, 60):
        # half of them damaged inside the compression, where tarfile sees it
        changed = mutated(base if seed % 2 else content, seed)
        root = tmp_path / str(seed)
        (root / "downloads").mkdir(parents=True)
        (root / "downloads" / filename).write_bytes(changed)
        put_official(monkeypatch, name, sha256=hashlib.sha256(changed).hexdigest(), counts=counts)
        what = f"{name}, seed {seed}"
        whole = check_set(check(lambda root=root: load_images(name, root=root, progress=False), what), what)
        left = {path.name for path in root.rglob("*") if path.is_file()}
        assert left == ({filename, f"{name}.npz"} if whole else {filename}), what
        read += whole
    assert read < 60 * TIMES


def test_the_unmutated_archives_are_read(official_archives, small, tmp_path, monkeypatch):
    for name, (content, counts) in official_archives.items():
        (tmp_path / name / "downloads").mkdir(parents=True)
        (tmp_path / name / "downloads" / DATA_SETS[name].filename).write_bytes(content)
        put_official(monkeypatch, name, sha256=hashlib.sha256(content).hexdigest(), counts=counts)
        found = load_images(name, root=tmp_path / name, progress=False)
        assert (len(found.train), len(found.test)) == counts
        if name != "tiny-imagenet":
            assert np.array_equal(found.train.images, small.images)


# ---------------------------------------------------------------------------------------------- the store


@pytest.mark.filterwarnings("error")
def test_mutated_store_entries(tmp_path, monkeypatch):
    """A mutated entry is the old result or none; it is made anew, and then it is whole."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # 600 times; tests/faults tests that it is called
    store = Store(tmp_path)
    result = {"values": np.arange(50), "names": np.array(["a", "b"])}
    path = store.put("stage", {}, result, seconds=0)
    content, absent = path.read_bytes(), 0
    for seed in seeds("store", 150):
        path.write_bytes(mutated(content, seed))
        what = f"store, seed {seed}"
        found = check(lambda: store.get("stage", {}), what)
        assert found is None or list(found) == list(result), what
        assert found is None or all(np.array_equal(found[name], result[name]) for name in result), what
        absent += found is None
        made = check(lambda: store.load_or_compute("stage", {}, lambda: {"values": np.arange(3)}), what)
        assert len(made["values"]) == (3 if found is None else 50), what
    assert absent > 50


# ---------------------------------------------------------------------------------------------- arguments


ODD = ["", " ", "\0", "\ud800", "~", "..\\..", "digits\n", "DIGITS", "cifar10.npz", "http://127.0.0.1/x", "a" * 300]


@pytest.mark.parametrize("source", [*ODD, "/dev/null"])
def test_odd_sources(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check(lambda: load_images(source, root=tmp_path, progress=False), repr(source)) is None
    assert os.listdir(tmp_path) == []


def test_odd_types_as_sources(tmp_path):
    for source in (None, 3, 1.5, True, [], {}, b"digits", Path("nothing"), object()):
        assert check(lambda source=source: load_images(source, root=tmp_path, progress=False), repr(source)) is None
