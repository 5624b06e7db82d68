"""A folder of PNG files and a table for other tools."""

import csv
import os

import numpy as np
import pytest

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data.export import export_folder
from dqas_lib.data.image_set import ImageSet
from dqas_lib.data.load import load_images


def rows(path):
    with open(path / "images.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_is_exported_comes_back_byte_for_byte(digits, tmp_path):
    some = digits.train.take(np.arange(120))
    path = export_folder(some, tmp_path / "mine")
    table = rows(path)
    assert [int(row["id"]) for row in table] == some.ids.tolist()
    assert [int(row["label"]) for row in table] == some.labels.tolist()
    assert sorted(os.listdir(path)) == [*"0123456789", "images.csv"]
    again = load_images(path, root=tmp_path / "data", progress=False)
    id_of = {row["file"]: int(row["id"]) for row in table}
    for part in (again.train, again.test):
        given = some.select([id_of[file] for file in part.ids.tolist()])
        assert np.array_equal(part.images, given.images)
        assert np.array_equal(part.labels, given.labels)


def test_names_that_no_file_system_holds(tmp_path):
    names = ("../up", "a/b", "A", "a", "", "con\0", "naïve", "." * 300)
    ids = np.array(["train/x/1.jpg", "../../x.png", "a\nb,c", '"', "", "z" * 500, "train/y/1.jpg", "é"])
    images = ImageSet(np.arange(8 * 12, dtype=np.uint8).reshape(8, 2, 2, 3), np.arange(8), ids, names)
    path = export_folder(images, tmp_path / "deep" / "mine")
    assert os.listdir(tmp_path) == ["deep"]
    assert os.listdir(tmp_path / "deep") == ["mine"]
    table = rows(path)
    assert [row["class"] for row in table] == list(names)
    assert [row["id"] for row in table] == ids.tolist()
    assert all((path / row["file"]).resolve().is_relative_to(path.resolve()) for row in table)
    assert all((path / row["file"]).is_file() for row in table)
    assert len({row["file"] for row in table}) == 8


def test_an_existing_path_and_one_that_cannot_be(tmp_path, blobs):
    with pytest.raises(InputError, match="exists already: give another path"):
        export_folder(blobs, tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already: give another path"):
        export_folder(blobs, tmp_path / "broken")
    with pytest.raises(InputError, match=r"images must be ImageSet; got .*, of kind ndarray"):
        export_folder(blobs.images, tmp_path / "x")
    with pytest.raises(InputError, match=r"path must be a text or Path; got .None."):
        export_folder(blobs, None)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        export_folder(blobs, tmp_path / "file" / "mine")
