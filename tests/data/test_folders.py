"""Folders of one's own: formats, sizes, faults, copies, the data report, the prepared set."""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data import decoding, folders
from dqas_lib.data.decoding import Fault, decode_all, try_decode
from dqas_lib.data.load import data_report, load_images


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth color picture, (height, width, 3) uint8, that no flip or turn leaves as it is."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    phase = seed * 0.7
    planes = [x, y, (x + 0.3 * y + phase) % 1]
    return np.round(np.stack(planes, axis=2) * 255).astype(np.uint8)


def decoded(path: Path, size: int, fit: str = "crop") -> np.ndarray:
    with open(path, "rb") as file:
        result = try_decode(path.name, file, size=size, fit=fit)
    assert not isinstance(result, Fault), result
    return result.pixels


def tree(root: Path, counts: dict[str, int], side: int = 16) -> Path:
    """A folder with this many PNG files a class folder, all different."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            content = picture(side, side)
            content[0, 0] = (label, number % 256, number // 256)
            Image.fromarray(content).save(root / name / f"{number:03d}.png")
    return root


def load(path: Path, data: Path, **options):
    return load_images(path, root=data, progress=False, **options)


# ---------------------------------------------------------------------------------------------- formats

RGB = picture(24, 24)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.webp", {"lossless": True}),
        ("A.PNG", {}),
    ],
)
def test_lossless_formats_are_read_byte_for_byte(tmp_path, name, options):
    Image.fromarray(RGB).save(tmp_path / name, **options)
    assert np.array_equal(decoded(tmp_path / name, 24), RGB)


@pytest.mark.parametrize(
    ("name", "options", "tolerance"),
    [
        ("a.jpg", {"quality": 95}, 6),
        ("a.jpeg", {"quality": 95, "progressive": True}, 6),
        ("a.webp", {"quality": 95}, 8),
    ],
)
def test_lossy_formats(tmp_path, name, options, tolerance):
    Image.fromarray(RGB).save(tmp_path / name, **options)
    assert np.abs(decoded(tmp_path / name, 24).astype(int) - RGB).mean() < tolerance


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (40, 120, 200)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=10, lossless=True)
        assert np.abs(decoded(tmp_path / name, 8).astype(int) - 40).max() <= 1, name


def test_grey_and_bilevel_pictures_get_three_equal_channels(tmp_path):
    gray = RGB[..., 2]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    assert np.array_equal(decoded(tmp_path / "gray.png", 24), np.repeat(gray[..., None], 3, axis=2))
    Image.fromarray(gray > 127).save(tmp_path / "bilevel.png")
    assert np.array_equal(decoded(tmp_path / "bilevel.png", 24)[..., 1], np.where(gray > 127, 255, 0))


def test_16_bits_are_scaled_not_clipped(tmp_path):
    deep = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = np.round(deep / 257).astype(np.uint8)
    assert np.array_equal(decoded(tmp_path / "deep.png", 8)[..., 0], expected)
    big = np.kron(deep, np.ones((16, 16), dtype=np.uint16))
    Image.fromarray(big).save(tmp_path / "big.png")
    assert np.abs(decoded(tmp_path / "big.png", 8)[1:-1, 1:-1, 0].astype(int) - expected[1:-1, 1:-1]).max() <= 12


def test_palettes_and_transparency_on_white(tmp_path):
    image = Image.fromarray(RGB).quantize(16)
    image.save(tmp_path / "palette.png")
    assert np.array_equal(decoded(tmp_path / "palette.png", 24), np.asarray(image.convert("RGB")))
    image.save(tmp_path / "clear.png", transparency=image.getpixel((0, 0)))
    clear = decoded(tmp_path / "clear.png", 24)
    assert clear[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(clear[-1, -1], np.asarray(image.convert("RGB"))[-1, -1])
    half = np.dstack([np.zeros((8, 8, 3), dtype=np.uint8), np.full((8, 8), 51, dtype=np.uint8)])
    Image.fromarray(half).save(tmp_path / "half.png")  # black at an opacity of 0.2 on white: 0.8 * 255 = 204
    assert decoded(tmp_path / "half.png", 8).tolist() == np.full((8, 8, 3), 204).tolist()
    grey_alpha = Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).convert("LA")
    grey_alpha.putalpha(0)
    grey_alpha.save(tmp_path / "la.png")
    assert decoded(tmp_path / "la.png", 8).min() == 255
    Image.fromarray(np.full((8, 8, 3), 9, dtype=np.uint8)).save(tmp_path / "key.png", transparency=(9, 9, 9))
    assert decoded(tmp_path / "key.png", 8).min() == 255


def test_cmyk(tmp_path):
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(decoded(tmp_path / "a.jpg", 24).astype(int) - RGB).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_exif_turns_the_picture_upright(tmp_path, name, orientation):
    upright = picture(16, 16)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: np.rot90(upright[::-1], -1),
        8: np.rot90(upright, -1),
    }[orientation]
    stored = np.rot90(upright[::-1, :], 1) if orientation == 7 else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {"lossless": True}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif, **options)
    tolerance = 4 if name == "a.jpg" else 0
    assert np.abs(decoded(tmp_path / name, 16).astype(int) - upright).max() <= tolerance


def test_a_turned_picture_is_measured_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(40, 20)).save(tmp_path / "a.jpg", exif=exif)
    with open(tmp_path / "a.jpg", "rb") as file:
        result = try_decode("a.jpg", file, size=16)
    assert (result.width, result.height, result.kind) == (20, 40, "JPEG RGB")


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 64), (640, 320), (33, 1000), (1000, 1), (1, 1), (5, 3)])
def test_crop_keeps_the_middle_and_pad_keeps_everything(tmp_path, width, height):
    content = np.full((height, width, 3), 200, dtype=np.uint8)
    Image.fromarray(content).save(tmp_path / "a.png")
    assert (decoded(tmp_path / "a.png", 16, "crop") == 200).all()
    padded = decoded(tmp_path / "a.png", 16, "pad")
    longer = max(width, height)
    bright = (padded[..., 0] == 200).sum()
    assert bright == max(1, round(16 * width / longer)) * max(1, round(16 * height / longer))
    assert (padded[..., 0] == 0).sum() == 256 - bright


def test_crop_is_centered(tmp_path):
    content = np.zeros((16, 48, 3), dtype=np.uint8)
    content[:, 16:32] = 255
    Image.fromarray(content).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png", 16).min() == 255


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.jpg", {"quality": 95})])
def test_a_large_picture_is_scaled_down_as_exactly_as_it_looks(tmp_path, name, options):
    Image.fromarray(picture(1000, 800)).save(tmp_path / name, **options)
    with Image.open(tmp_path / name) as image:
        middle = image.convert("RGB").crop((100, 0, 900, 800))
        plain = np.asarray(middle.resize((32, 32), Image.Resampling.LANCZOS))
    assert np.abs(decoded(tmp_path / name, 32).astype(int) - plain).mean() < 1


def test_digits_survive_a_folder_byte_for_byte(digits, tmp_path):
    """Every digit as PNG, read back from a folder: the same pixels, labels and classes."""
    given = digits.train.take(np.arange(200))
    for image, label, id_ in zip(given.images, given.labels, given.ids, strict=True):
        folder = tmp_path / "digits" / digits.train.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{id_:04d}.png")
    found = load(tmp_path / "digits", tmp_path / "data")
    assert found.train.size == 8
    assert len(found.train) + len(found.test) == 200
    for part in (found.train, found.test):
        given = digits.train.select([int(Path(file).stem) for file in part.ids])
        assert np.array_equal(part.images, given.images)
        assert np.array_equal(part.labels, given.labels)


def test_tiny_imagenet_photographs_from_a_folder(tiny_imagenet_root, tmp_path):
    source = tiny_imagenet_root / "tiny-imagenet-200" / "train"
    for folder in sorted(source.iterdir())[:4]:
        shutil.copytree(folder / "images", tmp_path / "photos" / folder.name)
    found = load(tmp_path / "photos", tmp_path / "data")
    assert found.train.size == 64
    assert found.train.class_counts.tolist() == [32] * 4
    assert found.test.class_counts.tolist() == [8] * 4
    for position in range(0, 128, 13):
        with Image.open(tmp_path / "photos" / str(found.train.ids[position])) as image:
            assert np.array_equal(found.train.images[position], np.asarray(image.convert("RGB")))


# ---------------------------------------------------------------------------------------------- trees


def test_train_and_test_as_found(tmp_path):
    tree(tmp_path / "mine" / "train", {"cat": 5, "dog": 3})
    tree(tmp_path / "mine" / "test", {"cat": 2, "dog": 1}, side=12)
    tree(tmp_path / "mine" / "val", {"cat": 2})
    found = load(tmp_path / "mine", tmp_path / "data", size=16)
    assert found.train.class_counts.tolist() == [5, 3]
    assert found.test.class_counts.tolist() == [2, 1]
    assert found.train.ids[0] == "train/cat/000.png"
    assert found.test.ids[-1] == "test/dog/000.png"
    assert found.name == found.train.name == "mine"
    assert found.train.mirror is True
    assert load(tmp_path / "mine", tmp_path / "data", size=16, mirror=False).test.mirror is False
    report = data_report(tmp_path / "mine", root=tmp_path / "data", size=16, progress=False)
    assert report.outside == 2
    assert report.provenance()["split"] == "train/ and test/ as found"


def test_one_tree_is_split_by_ids_and_stratified(tmp_path):
    path = tree(tmp_path / "mine", {"a": 50, "b": 10, "c": 1})
    found = load(path, tmp_path / "data")
    assert found.test.class_counts.tolist() == [10, 2, 0]
    assert found.train.class_counts.tolist() == [40, 8, 1]
    assert not set(found.train.ids) & set(found.test.ids)
    moved = load(Path(shutil.copytree(path, tmp_path / "other")), tmp_path / "data2")
    assert moved.test.ids.tolist() == found.test.ids.tolist()
    assert "drawn by seed 0" in found.train.provenance["split"]


def test_a_class_may_be_called_train_and_folders_may_be_nested(tmp_path):
    path = tree(tmp_path / "vehicles", {"bus": 5, "train": 5})
    (path / "bus" / "red" / "new").mkdir(parents=True)
    Image.fromarray(picture(16, 16, 3)).save(path / "bus" / "red" / "new" / "x.png")
    found = load(path, tmp_path / "data")
    assert found.train.class_names == ("bus", "train")
    assert "bus/red/new/x.png" in {*found.train.ids, *found.test.ids}


def test_names_of_every_kind(tmp_path):
    path = tree(tmp_path / "мои картинки", {"Kälte & Wind": 5, "a,b\n'c'": 5, "猫": 5})
    found = load(path, tmp_path / "data")
    assert found.train.class_names == ("Kälte & Wind", "a,b\n'c'", "猫")
    assert found.train.fingerprint() == load(path, tmp_path / "data").train.fingerprint()


def test_hidden_files_links_and_other_files(tmp_path):
    path = tree(tmp_path / "mine", {"a": 5, "b": 5})
    (path / ".cache").mkdir()
    (path / "__MACOSX").mkdir()
    (path / "a" / "._000.png").write_bytes(b"no picture")
    (path / "a" / "notes.txt").write_text("hello")
    report = data_report(path, root=tmp_path / "data", progress=False)
    assert report.class_names == ("a", "b")
    assert report.others == 2
    assert not report.faults


def test_links_never_lead_in_circles(tmp_path):
    store = tree(tmp_path / "store", {"far": 6})
    path = tree(tmp_path / "mine", {"a": 5, "b": 5})
    os.symlink(store / "far", path / "c")  # a class folder may be a link, and so may a file
    os.symlink(store / "far" / "005.png", path / "b" / "link.png")
    found = load(path, tmp_path / "data")
    assert (found.train.class_counts + found.test.class_counts).tolist() == [5, 6, 6]
    os.symlink(path, path / "a" / "up")
    with pytest.raises(DataError, match=r"1 of 18 .* a/up/: is a link to a folder, which is not followed"):
        load(path, tmp_path / "data")
    os.symlink(path, path / "d")
    with pytest.raises(DataError, match=r"d/d/: is a link to a folder"):
        load(path, tmp_path / "data")


@pytest.mark.parametrize("name", ["a/x.png", "a/x", "c", "train"])
def test_a_link_to_itself_is_named_and_can_be_skipped(tmp_path, name):
    path = tree(tmp_path / "mine", {"a": 5, "b": 5})
    os.symlink(path / name, path / name)
    with pytest.raises(DataError, match=rf"1 of 11 .*{name}: is a broken link \(Too many levels of symbolic links\)"):
        load(path, tmp_path / "data")
    found = load(path, tmp_path / "data", on_error="skip")
    assert [item["file"] for item in found.train.provenance["left_out"]] == [name]
    for look in (load_images, data_report):
        with pytest.raises(InputError, match=r"mine/.* is no path \(Too many levels of symbolic links\)"):
            look(path / name)


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tree(tmp_path / "mine", {"a": 5, "b": 5})
    os.mkfifo(path / "a" / "pipe.png")
    os.symlink(path / "nowhere.png", path / "a" / "broken.png")
    with pytest.raises(DataError, match=r"2 of 12 .*broken\.png: is a broken link.*pipe\.png: is no regular file"):
        load(path, tmp_path / "data")


def test_a_name_that_is_no_utf8(tmp_path):
    path = tree(tmp_path / "mine", {"a": 5, "b": 5})
    os.rename(path / "a" / "000.png", os.fsencode(path / "a") + b"/\xff\xfe.png")
    with pytest.raises(DataError, match=r"a/\\xff\\xfe.png: its name is no UTF-8: rename it"):
        load(path, tmp_path / "data")
    assert len(load(path, tmp_path / "data", on_error="skip").train) == 7  # of 4 + 5, one each in the test set
    os.mkdir(os.fsencode(path) + b"/\xff")
    with pytest.raises(DataError, match="is no UTF-8: rename it"):
        load(path, tmp_path / "data")


# ---------------------------------------------------------------------------------------------- faults


@pytest.fixture
def messy(tmp_path) -> Path:
    """11 good pictures in two classes, and one of every fault."""
    path = tree(tmp_path / "messy", {"a": 6, "b": 5})
    good = (path / "a" / "000.png").read_bytes()
    (path / "a" / "empty.png").write_bytes(b"")
    (path / "a" / "half.png").write_bytes(good[: len(good) // 2])
    (path / "a" / "text.jpg").write_text("<html>not found</html>")
    (path / "b" / "photo.heic").write_bytes(b"whatever")
    (path / "loose.png").write_bytes(good)
    return path


FAULTY = ["a/empty.png", "a/half.png", "a/text.jpg", "b/photo.heic", "loose.png"]


def test_by_default_the_run_stops_and_lists_every_fault(messy, tmp_path):
    with pytest.raises(DataError) as caught:
        load(messy, tmp_path / "data")
    message = caught.value.one_line()
    assert "5 of 16 image files cannot be used" in message
    assert "give on_error='skip' to leave them out" in message
    assert [file for file in FAULTY if f"{file}: " in message] == FAULTY
    assert ".heic pictures are not read: convert it to JPEG, PNG, WEBP, BMP or GIF" in message
    assert "loose.png: lies in no class folder" in message


def test_skip_leaves_the_faults_out_and_records_them(messy, tmp_path):
    found = load(messy, tmp_path / "data", on_error="skip")
    assert len(found.train) + len(found.test) == 11
    for part in (found.train, found.test, found.train.take(np.arange(2))):
        assert [item["file"] for item in part.provenance["left_out"]] == FAULTY
        json.dumps(part.provenance)
    assert found.train.provenance["images"] == [len(found.train), len(found.test)]


def test_the_split_is_the_one_without_the_faults(messy, tmp_path):
    skipped = load(messy, tmp_path / "data", on_error="skip")
    for file in FAULTY:
        (messy / file).unlink()
    assert load(messy, tmp_path / "data").test.ids.tolist() == skipped.test.ids.tolist()


def test_many_faults_are_counted_past_fifty(tmp_path):
    path = tree(tmp_path / "mine", {"a": 5, "b": 5})
    for number in range(60):
        (path / "a" / f"bad{number:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"60 of 70 .* and 10 more"):
        load(path, tmp_path / "data")


def test_a_picture_of_a_class_unknown_to_training(tmp_path):
    tree(tmp_path / "mine" / "train", {"cat": 5, "dog": 3})
    tree(tmp_path / "mine" / "test", {"cat": 2, "dgo": 1})
    with pytest.raises(DataError, match=r"test/dgo/000.png: is of class 'dgo', which has no folder in train/"):
        load(tmp_path / "mine", tmp_path / "data")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "has no class folders"),
        (lambda path: tree(path, {"a": 3, "b": 0}), r"1 of 2 classes have no training image \('b'\)"),
        (lambda path: tree(path, {"a": 0, "b": 0}), r"2 of 2 classes have no training image"),
        (lambda path: tree(path, {"a": 1, "b": 1}), "no image is left for the test set"),
        (lambda path: tree(path / "train", {"a": 3, "b": 3}), "has train/ but no test/"),
        (lambda path: (tree(path / "train", {"a": 3}), (path / "test").mkdir()), "no image is left for the test set"),
    ],
)
def test_a_folder_that_is_no_data_set(tmp_path, make, message):
    make(tmp_path / "mine")
    with pytest.raises(DataError, match=message):
        load(tmp_path / "mine", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"size": 1}, {"size": 0}, {"size": -3}, {"size": 2.5}, {"size": "64"}, {"size": True}, {"size": 10**9},
        {"fit": "stretch"}, {"fit": None}, {"on_error": "ignore"}, {"duplicates": "merge"},
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_named(tmp_path, options):
    path = tree(tmp_path / "mine", {"a": 3, "b": 3})
    ((name, value),) = options.items()
    with pytest.raises(InputError) as caught:
        load(path, tmp_path / "data", **options)
    assert str(caught.value).startswith((f"{name} is one of ", f"{name} must be a whole number from 2 to 4,096"))
    assert str(caught.value).endswith(f"got {value!r}")
    assert not (tmp_path / "data").exists()


def png_of(width: int, height: int) -> bytes:
    """A PNG of black pixels that takes a few hundred bytes whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    squeezed = zlib.compress(b"\0" * min(1000, height * (1 + 3 * width)))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", squeezed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("side", [12_000, 20_000, 100_000])
def test_decompression_bombs_are_refused_with_their_size(tmp_path, side):
    path = tree(tmp_path / "mine", {"a": 3, "b": 3})
    (path / "a" / "bomb.png").write_bytes(png_of(side, side))
    with pytest.raises(DataError, match=rf"bomb.png: .*({side:,} x {side:,} pixels|{side * side} pixels).*bomb"):
        load(path, tmp_path / "data")


def test_the_limit_counts_what_decoding_takes(tmp_path, monkeypatch):
    """Bytes per pixel: 4; 10 progressive, 16 of a WebP, 8 with a palette, 12 with transparency; a JPEG is drafted."""
    monkeypatch.setattr(decoding, "DECODING_BYTES", 1_000_000)
    palette = Image.new("RGB", (1, 1), (10, 20, 30)).quantize(4)
    for name, side, options in [
        ("a.png", 500, {}),
        ("a.webp", 250, {}),
        ("a.jpg", 500, {}),
        ("b.jpg", 316, {"progressive": True}),
        ("p.png", 353, {}),
        ("t.png", 288, {"transparency": 0}),
    ]:
        for extra, fits in ((0, True), (2, False)):
            picture = palette.resize((side + extra, side)) if name in ("p.png", "t.png") else None
            picture = picture or Image.new("RGB", (side + extra, side), (10, 20, 30))
            picture.save(tmp_path / name, **options)
            with open(tmp_path / name, "rb") as file:
                result = try_decode(name, file, size=256)
            assert isinstance(result, Fault) is not fits, name
    assert "290 x 288 pixels and would take 1 MB to decode, more than the 1 MB allowed" in str(result)
    Image.new("RGB", (4000, 4000), (10, 20, 30)).save(tmp_path / "large.jpg")
    assert np.abs(decoded(tmp_path / "large.jpg", 200).astype(int) - [10, 20, 30]).max() <= 2


def test_large_pictures_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    """However many threads there are; small ones do not wait."""
    monkeypatch.setattr(decoding, "LARGE_BYTES", 400_000)
    monkeypatch.setattr(decoding, "CHUNK", 1)
    monkeypatch.setattr(decoding.os, "cpu_count", lambda: 4)
    busy, most = {"large": 0, "small": 0}, {"large": 0, "small": 0}
    counting = threading.Lock()
    square = decoding._square

    def spy(image: Image.Image, *arguments: object) -> Image.Image:
        kind = "large" if image.width == 400 else "small"
        with counting:
            busy[kind] += 1
            most[kind] = max(most[kind], busy[kind])
        time.sleep(0.02)
        made = square(image, *arguments)
        with counting:
            busy[kind] -= 1
        return made

    monkeypatch.setattr(decoding, "_square", spy)
    for number in range(12):
        width = 400 if number % 2 else 40
        Image.fromarray(picture(width, 300, number)).save(tmp_path / f"{number}.png")  # 480,000 and 48,000 bytes each
    names = [f"{number}.png" for number in range(12)]
    images, results = decode_all(names, lambda name: (tmp_path / name).open("rb"), size=8, progress=False)
    assert most["large"] == 1
    assert most["small"] > 1
    assert len(results) == 12
    assert images.any(axis=(1, 2, 3)).all()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_of_hostile_pictures_is_bounded(tmp_path):
    """Four pictures of nearly 400 MB in four threads take no more than one of them, beside what was there before."""
    code = """
import sys
from pathlib import Path
from dqas_lib.data import decoding
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
decoding.os.cpu_count, decoding.CHUNK = (lambda: 4), 1
names = sorted(str(path) for path in Path(sys.argv[1]).iterdir())
before = peak()
images, results = decoding.decode_all(names, lambda name: open(name, "rb"), size=64, progress=False)
assert not any(isinstance(item, decoding.Fault) for item in results), results
print(peak() - before)
"""
    Image.new("RGB", (9900, 9900), (10, 200, 30)).save(tmp_path / "0.png", compress_level=1)
    Image.new("RGBA", (7000, 7000), (10, 200, 30, 90)).save(tmp_path / "1.png", compress_level=1)
    for number in (2, 3):
        shutil.copy(tmp_path / f"{number - 2}.png", tmp_path / f"{number}.png")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 300_000 < int(done.stdout) < 550_000  # kilobytes


# ---------------------------------------------------------------------------------------------- copies


@pytest.fixture
def copied(tmp_path) -> Path:
    """Copies within a class, across classes, and across train and test."""
    tree(tmp_path / "mine" / "train", {"a": 5, "b": 5})
    (tmp_path / "mine" / "test").mkdir()
    top = tmp_path / "mine"
    for kind in "ab":
        (top / "test" / kind).mkdir()
        Image.fromarray(picture(16, 16, 5 + ord(kind))).save(top / "test" / kind / "0.png")
    shutil.copy(top / "train/a/000.png", top / "train/a/copy.png")
    shutil.copy(top / "train/a/001.png", top / "train/b/wrong.png")
    shutil.copy(top / "train/b/002.png", top / "test/b/leak.png")
    return top


def test_copies_are_kept_and_reported(copied, tmp_path):
    report = data_report(copied, root=tmp_path / "data", progress=False)
    assert report.counts.tolist() == [[6, 6], [1, 2]]
    assert {frozenset(group) for group in report.copies} == {
        frozenset({"train/a/000.png", "train/a/copy.png"}),
        frozenset({"train/a/001.png", "train/b/wrong.png"}),
        frozenset({"train/b/002.png", "test/b/leak.png"}),
    }
    rows = {finding.what: finding for finding in report.findings()}
    assert rows["exact copies"].count == 6
    assert rows["... in several classes"].count == 2
    assert "train/b/wrong.png" in rows["... in several classes"].examples
    assert rows["... in train and test"].count == 2
    assert rows["... in train and test"].action.startswith("kept; duplicates='drop'")


def test_copies_are_dropped_on_demand(copied, tmp_path):
    found = load(copied, tmp_path / "data", duplicates="drop")
    left = {*found.train.ids.tolist(), *found.test.ids.tolist()}
    assert "train/a/000.png" in left
    assert "train/a/copy.png" not in left
    assert not {"train/a/001.png", "train/b/wrong.png"} & left
    assert "test/b/leak.png" in left
    assert "train/b/002.png" not in left
    assert sorted(item["file"] for item in found.train.provenance["left_out"]) == [
        "train/a/001.png", "train/a/copy.png", "train/b/002.png", "train/b/wrong.png",
    ]  # fmt: skip
    reasons = {item["file"]: item["reason"] for item in found.train.provenance["left_out"]}
    assert reasons["train/b/002.png"] == "same bytes as test/b/leak.png (duplicates='drop')"
    assert reasons["train/b/wrong.png"].endswith("in several classes (duplicates='drop'): train/a/001.png")
    for part in (found.train, found.test):
        for file, image in zip(part.ids, part.images, strict=True):
            assert np.array_equal(image, decoded(copied / str(file), 16)), file


def test_copies_never_fall_on_both_sides_of_a_made_split(tmp_path):
    path = tree(tmp_path / "mine", {"a": 20, "b": 20})
    for number in range(20):
        shutil.copy(path / "a" / f"{number:03d}.png", path / "a" / f"copy{number:03d}.png")
    shutil.copy(path / "b" / "000.png", path / "a" / "b.png")
    found = load(path, tmp_path / "data")
    sides = [{image.tobytes() for image in part.images} for part in (found.train, found.test)]
    assert not sides[0] & sides[1]
    assert found.test.class_counts.tolist() == [8, 4]
    assert {"a/b.png", "b/000.png"} <= set(found.train.ids.tolist())


# ---------------------------------------------------------------------------------------------- the prepared set


def test_a_folder_is_decoded_once_until_a_file_changes(tmp_path, monkeypatch):
    path = tree(tmp_path / "mine", {"a": 10, "b": 10})
    calls = []
    monkeypatch.setattr(folders, "decode_all", lambda *a, **k: calls.append(1) or decode_all(*a, **k))
    first = load(path, tmp_path / "data")
    assert load(path, tmp_path / "data").train.fingerprint() == first.train.fingerprint()
    assert load(path, tmp_path / "data", on_error="skip").train.provenance == first.train.provenance
    assert len(calls) == 1
    stat = (path / "a" / "003.png").stat()
    Image.fromarray(picture(16, 16, 9)).save(path / "a" / "003.png")
    os.utime(path / "a" / "003.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # contents count, not times
    assert load(path, tmp_path / "data").train.fingerprint() != first.train.fingerprint()
    assert len(calls) == 2
    load(path, tmp_path / "data", size=8)
    load(path, tmp_path / "data", fit="pad")
    (path / "b" / "new.png").write_bytes((path / "b" / "000.png").read_bytes())
    load(path, tmp_path / "data")
    assert len(calls) == 5


def test_a_damaged_prepared_set_is_made_anew(tmp_path):
    path = tree(tmp_path / "mine", {"a": 10, "b": 10})
    first = load(path, tmp_path / "data")
    (prepared,) = (tmp_path / "data" / "folders").glob("*.npz")
    content = prepared.read_bytes()
    prepared.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    assert load(path, tmp_path / "data").train.fingerprint() == first.train.fingerprint()
    assert prepared.read_bytes() == content
    place = content.index("PNG RGB".encode("utf-32-le"))  # what was found out about the files, not the images
    prepared.write_bytes(content[:place] + b"x" + content[place + 1 :])
    assert load(path, tmp_path / "data").train.fingerprint() == first.train.fingerprint()
    assert prepared.read_bytes() == content


def test_the_prepared_set_is_a_prepared_set(tmp_path):
    path = tree(tmp_path / "mine", {"a": 10, "b": 10})
    first = load(path, tmp_path / "data")
    (prepared,) = (tmp_path / "data" / "folders").glob("mine-16px-*.npz")
    again = load_images(prepared)
    assert np.array_equal(again.train.images, first.train.images)
    assert again.test.ids.tolist() == first.test.ids.tolist()


def test_the_report_of_a_remembered_folder_is_the_same(messy, tmp_path):
    first = data_report(messy, root=tmp_path / "data", size=8, fit="pad", progress=False)
    again = data_report(messy, root=tmp_path / "data", size=8, fit="pad", progress=False)
    assert again.findings() == first.findings()
    assert again.provenance() == first.provenance()
    rows = {finding.what: finding for finding in first.findings()}
    assert rows["images used"].count == 11
    assert rows["files that cannot be used"].count == 5
    assert "on_error='skip'" in rows["files that cannot be used"].action
    assert "pad: the rest is black" in rows["sizes"].action
    assert rows["classes"].examples == "a: 5 ... b: 4 training images"


def test_a_file_that_changes_between_hashing_and_decoding_is_noticed(tmp_path, monkeypatch):
    path = tree(tmp_path / "mine", {"a": 10, "b": 10})
    hashes = folders._hashes

    def then_changed(*arguments: object, **options: object) -> list[str]:
        found = hashes(*arguments, **options)
        stat = (path / "b" / "003.png").stat()
        Image.fromarray(picture(16, 16, 9)).save(path / "b" / "003.png")
        os.utime(path / "b" / "003.png", ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return found

    monkeypatch.setattr(folders, "_hashes", then_changed)
    with pytest.raises(DataError, match=r"b/003.png changed while the folder was read: run this again"):
        load(path, tmp_path / "data", on_error="skip")
    assert not (tmp_path / "data").exists()
    monkeypatch.undo()
    assert len(load(path, tmp_path / "data").train) == 16


def test_a_report_of_what_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        data_report(tmp_path / "nowhere")
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(InputError, match=r"is no (path|folder)"):
            data_report(name)
        with pytest.raises(InputError, match=r"is no path|unknown data set"):
            load_images(name)
