"""A folder of pictures -> chosen original files, in three forms; what may go wrong on the way."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dqas_lib.__main__ import main
from dqas_lib.compress import compress_folder
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data import originals
from dqas_lib.data.near_duplicates import near_duplicates


@pytest.fixture(autouse=True)
def _data(tmp_path, monkeypatch):
    monkeypatch.setenv("DQAS_DATA", str(tmp_path / "data"))


def picture(seed, side=40):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """30 cats, 10 dogs, JPEG of 40 px; a cat twice, smaller the second time, a file that is no picture."""
    for name, numbers in (("cat", range(30)), ("dog", range(30, 40))):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in numbers:
            picture(number).save(tmp_path / "in" / name / f"{number:02d}.jpg")
    picture(3, side=24).save(tmp_path / "in" / "cat" / "small.png")
    (tmp_path / "in" / "dog" / "page.jpg").write_text("<html>")
    return tmp_path / "in"


def state(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def compressed(folder, out, **options):
    return compress_folder(folder, out, 0.2, **{"method": "random", "on_error": "skip", **options})


def test_originals_and_lists(folder, tmp_path):
    before = state(folder)
    done = compressed(folder, tmp_path / "out")
    assert state(folder) == before
    kept = (tmp_path / "out" / "kept.txt").read_text().split()
    dropped = [line.split("\t") for line in (tmp_path / "out" / "dropped.txt").read_text().splitlines()]
    assert kept == [*done.kept]
    assert len(kept) == round(0.2 * 41)
    assert {*kept, *(name for name, _ in dropped)} == {str(path.relative_to(folder)) for path in before}
    assert dict(dropped)["dog/page.jpg"].startswith("is no JPEG")
    written = {str(path.relative_to(done.path)) for path in done.path.glob("*/*")}
    assert written == set(kept)
    assert all((done.path / name).read_bytes() == (folder / name).read_bytes() for name in kept)
    assert [pair[:2] for pair in done.near] == [("cat/small.png", "cat/03.jpg")]
    assert done.classes["dog"][2] == 4  # the reference of imbalanced classes has half of each
    assert len((done.path / "reference.txt").read_text().split()) == 8
    assert json.loads((done.path / "selection.json").read_text())["pool"] == 41


@pytest.mark.parametrize(("budget", "limit"), [(9000, 9000), ("9kB", 9000), ("30%", None), ("1 MB", 10**6)])
def test_a_budget_in_bytes_is_filled_by_originals(folder, tmp_path, budget, limit):
    done = compress_folder(folder, tmp_path / "out", bytes=budget, method="random", on_error="skip")
    sizes = [path.stat().st_size for path in done.path.glob("*/*")]
    limit = limit or 0.3 * done.bytes[0]
    assert sum(sizes) == done.bytes[1] <= limit
    assert len(sizes) == len(done.kept) == 41 or sum(sizes) > limit - 2 * max(sizes)
    assert json.loads((done.path / "selection.json").read_text())["ratio"] == len(done.kept) / 41


@pytest.mark.parametrize(("link", "linked"), [("hard", os.path.samefile), ("symbolic", lambda a, b: a.is_symlink())])
def test_links(folder, tmp_path, link, linked):
    done = compressed(folder, tmp_path / "out", link=link)
    assert all(linked(done.path / name, folder / name) for name in done.kept)


def test_train_and_test_folders(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "split" / "train")
    shutil.copytree(folder, tmp_path / "split" / "test")
    done = compressed(tmp_path / "split", tmp_path / "out", duplicates="keep")
    assert all((tmp_path / "split" / "train" / name).is_file() for name in done.kept)
    assert {path.parent.name for path in done.path.glob("*/*")} == {"cat", "dog"}


def test_parquet_as_hugging_face_reads_it(folder, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(originals, "SHARD_BYTES", 2000)
    done = compressed(folder, tmp_path / "out", form="parquet")
    files = sorted((done.path / "data").iterdir())
    assert [path.name for path in files] == [f"train-{i:05d}-of-{len(files):05d}.parquet" for i in range(len(files))]
    assert len(files) > 1
    rows = [row for path in files for row in parquet.read_table(path).to_pylist()]
    assert [row["image"]["path"] for row in rows] == [*done.kept]
    assert all(row["image"]["bytes"] == (folder / row["image"]["path"]).read_bytes() for row in rows)
    assert all(("cat", "dog")[row["label"]] == row["image"]["path"][:3] for row in rows)
    told = json.loads(parquet.read_schema(files[0]).metadata[b"huggingface"])["info"]["features"]
    assert told["image"]["_type"] == "Image"
    yaml = pytest.importorskip("yaml")
    card = yaml.safe_load((done.path / "README.md").read_text().split("---")[1])
    assert told["label"] == {"names": ["cat", "dog"], "_type": "ClassLabel"}  # in the files, not in the card again
    assert card["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]


def test_yolo_list(folder, tmp_path):
    done = compressed(folder, tmp_path / "out", form="yolo")
    assert (done.path / "train.txt").read_text().split() == [str(folder / name) for name in done.kept]
    assert (done.path / "names.txt").read_text() == "cat\ndog\n"
    assert f"train = {done.path}/train.txt" in (done.path / "images.data").read_text()


def test_the_command(folder, tmp_path, capsys):
    out = str(tmp_path / "out")
    command = ["compress", str(folder), "--ratio", "0.2", "--out", out, "--method", "random", "--quiet"]
    assert main(command) == 2
    assert "1 of 42 image files cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--skip"]) == 0
    assert "kept 8 of 41 images" in capsys.readouterr().out
    few = [*command[:2], "--bytes", "3kB", *command[4:5], f"{out}-3kB", *command[6:], "--skip"]
    assert main(few) == 0
    assert 0 < sum(path.stat().st_size for path in (tmp_path / "out-3kB").glob("*/*")) <= 3000
    assert main([*command, "--skip"]) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_help_does_not_wait_for_torch():
    code = "import sys; from dqas_lib.__main__ import arguments; arguments(['compress', 'a', '--out', 'b'])"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=True)


def test_what_is_refused(folder, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"lies in .*, which is only read: give a path outside it"):
        compressed(folder, folder / "out")
    for given in ({}, {"ratio": 0.2, "bytes": "9 kB"}):
        with pytest.raises(InputError, match=r"give a ratio, such as 0\.1, or bytes, such as '20MB'; got ratio "):
            compress_folder(folder, tmp_path / "out", **given)
    with pytest.raises(InputError, match=r"bytes must be a whole number, or a text such as .* got .few."):
        compress_folder(folder, tmp_path / "out", bytes="few")
    with pytest.raises(InputError, match="100 bytes are too few: the smallest set, one image, takes"):
        compress_folder(folder, tmp_path / "out", bytes=100, method="random", on_error="skip")
    with pytest.raises(InputError, match="form is one of folder, parquet, yolo; got 'zip'"):
        compressed(folder, tmp_path / "out", form="zip")
    (folder / "cat" / "new.jpg").write_bytes((folder / "cat" / "01.jpg").read_bytes()[:-9])
    with monkeypatch.context() as small_disk:  # said before the work: files are decoded, then images compared
        small_disk.setattr(originals.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 10))
        small_disk.setattr("dqas_lib.data.folders.decode_all", None)
        with pytest.raises(
            DataError, match=r"data/.*npz needs 0 MB and its disk has 0 MB left: free some, or set DQAS"
        ):
            compressed(folder, tmp_path / "out")
    with monkeypatch.context() as small_disk:
        small_disk.setattr("dqas_lib.compress.near_duplicates", None)
        with pytest.raises(TypeError):  # there is room
            compressed(folder, tmp_path / "out")
        small_disk.setattr(originals.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(9, 9, 10))
        with pytest.raises(
            DataError, match=r"out needs 0 MB and its disk has 0 MB left: free some, give a smaller ratio"
        ):
            compressed(folder, tmp_path / "out")
    monkeypatch.setenv("DQAS_DATA", str(folder / "data"))
    with pytest.raises(InputError, match="set DQAS_DATA to another folder"):
        compressed(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("what", "said"),
    [(lambda path: path.unlink(), "was moved or removed meanwhile"), (lambda path: path.touch(), "changed since")],
)
def test_originals_that_move_after_the_choice(folder, tmp_path, monkeypatch, what, said):
    def late(images, near):
        for path in folder.glob("*/*.jpg"):
            what(path)
        return near_duplicates(images, near)

    monkeypatch.setattr("dqas_lib.compress.near_duplicates", late)
    with pytest.raises(DataError, match=said):
        compressed(folder, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "data"}


def test_near_duplicates_of_photographs_and_none_of_flat_images():
    images = np.stack([np.asarray(picture(seed, 32)) for seed in (1, 2, 1, 3)])
    images[2] = np.clip(images[2] * 0.9 + 12, 0, 255).astype(np.uint8)  # darker, less contrast
    flat = np.full((2, 32, 32, 3), 90, dtype=np.uint8)
    match, cosine = near_duplicates(np.concatenate([images, flat]))
    assert match.tolist() == [-1, -1, 0, -1, -1, -1]
    assert cosine[2] > 0.99
