"""A growing set: new images join a compressed one."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import dqas_lib as dqas
from dqas_lib.compress import compress_folder
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.update import update

SETTING = dqas.Setting("small_cnn", dqas.Recipe("short", steps=10, batch_size=16))


@pytest.fixture
def halves(blobs):
    return blobs.take(np.arange(0, 60, 2)), blobs.take(np.arange(1, 60, 2))


def test_old_ones_stay_and_new_ones_join(halves, tmp_path):
    first, second = halves
    before = dqas.quantize(first, 0.2, method="random", setting=SETTING)
    for compressed in (before, dqas.open_compressed(before.save(tmp_path / "set"))):
        after = update(compressed, second, setting=SETTING)
        assert after.ids[:6].tolist() == before.ids.tolist()
        assert len(after) == 12
        assert np.isin(after.ids[6:], second.ids).all()
        assert (after.n_pool, after.image_ratio) == (60, 0.2)
        assert [join["kept"] for join in after.settings["updates"]] == [6]
        assert after.class_counts.tolist() == [4, 4, 4]
    grown = dqas.open_compressed(after.save(tmp_path / "grown"))
    third = replace(second, ids=second.ids + 100)
    assert [join["kept"] for join in update(grown, third, setting=SETTING).settings["updates"]] == [6, 12]


def test_steps_are_shortened_and_epochs_are_not(halves):
    first, second = halves
    before = dqas.quantize(first, 0.2, method="random", setting=SETTING)
    assert update(before, second, setting=SETTING, effort=0.3).settings["updates"][0]["recipe"]["steps"] == 3
    by_epochs = SETTING.replace(recipe=dqas.Recipe("epochs", epochs=2, batch_size=16))
    assert update(before, second, setting=by_epochs).settings["updates"][0]["recipe"]["epochs"] == 2


def test_dropped_patches_are_dropped_and_reconstructed_as_before(halves):
    first, second = halves
    coder = dqas.AUTOENCODERS["quick"]
    coder = replace(coder, steps=3)
    before = dqas.quantize(first, 0.2, method="random", setting=SETTING, patchify="first", autoencoder=coder)
    after = update(before, second, setting=SETTING)
    assert after.autoencoder is before.autoencoder
    assert after.kept.shape == (12, before.kept.shape[1])
    assert after.kept[6:].sum() == before.kept.sum()


def test_new_classes_and_classes_that_vanished(halves):
    first, second = halves
    before = dqas.quantize(first, 0.2, method="random", setting=SETTING)
    fewer = second.take(np.flatnonzero(second.labels < 2))
    with pytest.raises(InputError, match="no new image is of class 'blue': add some, or give missing='keep'"):
        update(before, fewer, setting=SETTING)
    assert update(before, fewer, setting=SETTING, missing="keep").class_counts.tolist() == [4, 4, 2]
    renamed = replace(second, class_names=("blue", "gray", "red"))
    after = update(before, renamed, setting=SETTING, missing="keep")
    assert after.images.class_names == ("red", "green", "blue", "gray")
    assert after.class_counts.tolist() == [4, 2, 4, 2]


def test_what_does_not_fit(halves):
    first, second = halves
    before = dqas.quantize(first, 0.2, method="random", setting=SETTING)
    with pytest.raises(InputError, match=r"30 ids stand in both sets, 0 for one: rename the new files"):
        update(first, first, ratio=0.2, method="random", setting=SETTING)
    with pytest.raises(InputError, match=r"images of 8 px .* and of 4 px .*: load both with the same size"):
        update(before, replace(second, images=second.images[:, ::2, ::2]), setting=SETTING)
    with pytest.raises(InputError, match=r"does not say how it was made \(ratio None, method None\): give both"):
        update(before.images, second, setting=SETTING)
    with pytest.raises(InputError, match="the compressed set must be a Selection; got a str"):
        update("set", second, setting=SETTING)


def test_a_folder_grows(tmp_path, monkeypatch):
    monkeypatch.setenv("DQAS_DATA", str(tmp_path / "data"))
    rng = np.random.default_rng(0)
    for day in ("mon", "tue"):
        for number in range(20):
            path = tmp_path / day / ("cat", "dog")[number % 2] / f"{day}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    first = compress_folder(tmp_path / "mon", tmp_path / "one", 0.5, method="random", size=8)
    with pytest.raises(DataError, match=r"holds no selection.json and kept.txt of an earlier choice"):
        compress_folder(tmp_path / "tue", tmp_path / "two", join=tmp_path / "mon", size=8)
    both = compress_folder(tmp_path / "tue", tmp_path / "two", join=tmp_path / "one", size=8)
    assert set(both.kept) > set(first.kept)
    assert len(both.kept) == 20
    assert len(list((tmp_path / "two").glob("*/*.png"))) == 20
    assert len(first.kept) == len(list((tmp_path / "one").glob("*/*.png")))
    for path in (tmp_path / "tue" / "dog").iterdir():
        path.rename(tmp_path / "tue" / "cat" / path.name)
    (tmp_path / "tue" / "dog").rmdir()
    done = compress_folder(tmp_path / "tue", tmp_path / "cats", join=tmp_path / "one", size=8)
    assert "no new image is of class 'dog': what was chosen of it stays" in str(done)
    assert done.classes["dog"] == (5, 5)
    (tmp_path / "one" / first.kept[0]).rename(tmp_path / "elsewhere.png")
    with pytest.raises(
        DataError, match=rf"1 files chosen before are not in .*one, '{first.kept[0]}' for one: put them"
    ):
        compress_folder(tmp_path / "tue", tmp_path / "three", join=tmp_path / "one", size=8)
    with pytest.raises(InputError, match="give a ratio among the new images, no bytes; got ratio None and bytes 99"):
        compress_folder(tmp_path / "tue", tmp_path / "three", bytes=99, join=tmp_path / "one", size=8)
