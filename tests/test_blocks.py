"""Sets larger than memory: the same selections from memory-mapped images, block by block, and on Dask workers."""

import hashlib

import joblib
import numpy as np
import pytest
import torch

import dqas_lib.data.image_set as image_set
import dqas_lib.training.dynamics as dynamics
import dqas_lib.training.train as training
from dqas_lib.data.load import load_images
from dqas_lib.methods import DQASPlus
from dqas_lib.methods.geometry import ContextualDiversity
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

SETTING = Setting("small_cnn", Recipe("short", steps=30, batch_size=32, sides=((0.75, 0.5),)))
METHODS = ("random", "dq", DQASPlus(checkpoints=3))


def chosen(images):
    return [quantize(images, 0.1, method=method, setting=SETTING).ids.tolist() for method in METHODS]


@pytest.fixture
def mapped(digits, tmp_path):
    """The training digits as a folder of .npy files."""
    arrays = {"class_names": np.array(digits.train.class_names), "train_index": digits.train.ids, "mirror": False}
    for name in ("train", "test"):
        part = getattr(digits, name)
        arrays |= {f"{name}_images": part.images, f"{name}_labels": part.labels}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return load_images(tmp_path).train


@pytest.fixture
def small_blocks(monkeypatch):
    """Three blocks of images, seven of logits, and images that are read as they are needed."""
    for name, value in {"BLOCK": 512, "AT_ONCE": 2000, "KEPT_BYTES": 0}.items():
        monkeypatch.setattr(dynamics, name, value)
    monkeypatch.setattr(training, "KEPT_BYTES", 0)
    monkeypatch.setattr(image_set, "BLOCK", 100)


def test_mapped_images_walked_in_blocks_give_the_same_ids(digits, mapped, small_blocks, monkeypatch):
    in_blocks = chosen(mapped)
    monkeypatch.undo()
    assert isinstance(mapped.images, np.memmap)
    assert in_blocks == chosen(digits.train)


def test_blocks_give_equal_features(digits, small_blocks, monkeypatch):
    in_blocks = Pool(digits.train, setting=SETTING).dynamics(checkpoints=3, with_logits=True)
    monkeypatch.undo()
    whole = Pool(digits.train, setting=SETTING).dynamics(checkpoints=3, with_logits=True)
    assert np.array_equal(in_blocks["features"], whole["features"])
    assert np.array_equal(in_blocks["correct"], whole["correct"])
    for name in ("logits", "margin", "el2n", "grand"):  # sums of products, whose order depends on their number
        np.testing.assert_allclose(in_blocks[name], whole[name], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("error")  # PyTorch warns of arrays that cannot be written
@pytest.mark.parametrize("sides", [(), ((0.75, 0.5),)])
def test_a_training_on_mapped_images_is_equal_to_the_last_bit(digits, mapped, small_blocks, monkeypatch, sides):
    setting = Setting("small_cnn", Recipe("short", steps=10, batch_size=50, pad=0.2, sides=sides))
    read = training.train(mapped, setting=setting, evaluate_on=mapped)
    monkeypatch.undo()
    held = training.train(digits.train, setting=setting, evaluate_on=digits.train)
    assert all(torch.equal(value, read.network.state_dict()[name]) for name, value in held.network.state_dict().items())
    assert np.array_equal(read.logits, held.logits)


def test_crops_are_those_of_images_padded_all_at_once(digits):
    images, rng = digits.train.images, torch.Generator().manual_seed(0)
    picks = torch.randperm(len(images), generator=rng)[:64].to(torch.int32)
    offsets, flips = training.draw_view(64, 2, True, rng)
    whole = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for held in (images, training.held(images, 8, torch.device("cpu"))):
        batch = training.crop(held, picks, offsets, flips, 8, 2)
        for crop, pick, top, left, flip in zip(batch, picks, *offsets[:, :, 0], flips[:, 0], strict=True):
            expected = whole[pick, top : top + 8, left : left + 8]
            assert np.array_equal(crop, expected[:, ::-1] if flip else expected)


def test_what_is_counted_and_hashed_in_blocks_is_the_same(digits, mapped, small_blocks):
    assert np.array_equal(
        mapped.level_counts, [np.bincount(mapped.images[..., c].ravel(), minlength=256) for c in range(3)]
    )
    assert mapped.fingerprint() == digits.train.fingerprint()
    sha = hashlib.sha256()
    for part in (mapped.images, mapped.labels):
        sha.update(str(part.shape).encode() + part.tobytes())
    sha.update("\0".join([*mapped.ids.astype(str), *mapped.class_names, "False"]).encode())
    assert mapped.fingerprint() == sha.hexdigest()[:20]


def test_logits_are_held_for_a_window_inside_which_they_are_needed(digits):
    pool = Pool(digits.train, setting=SETTING)
    for inside, held in ((ContextualDiversity(), True), (None, False)):
        assert len(DQASPlus(inside=inside, checkpoints=1).select(pool, 60).positions) == 60
        assert ("logits" in [*pool.made.values()][-1]) is held


def test_what_the_pool_shares_does_not_depend_on_the_order_of_the_images(digits):
    order = np.random.default_rng(0).permutation(len(digits.train))
    pool, shuffled = (Pool(images, setting=SETTING) for images in (digits.train, digits.train.take(order)))
    for name, values in pool.dynamics(checkpoints=2).items():
        axis = {"features": 0, "logits": 0, "step": None}.get(name, 1)
        expected = values if axis is None else values.take(order, axis)
        assert np.array_equal(expected, shuffled.dynamics(checkpoints=2)[name])
    assert np.array_equal(pool.features[order], shuffled.features)
    assert np.array_equal(pool.bins(5).rank[order], shuffled.bins(5).rank)


def test_images_in_the_order_of_their_ids_are_not_copied(mapped):
    to, back = Pool(mapped)._moves
    assert np.shares_memory(mapped.take(to).images, mapped.images)
    assert np.shares_memory(mapped.labels[back], mapped.labels)


@pytest.mark.slow  # two imports of PyTorch
def test_two_dask_workers_give_the_same_ids(digits, mapped, small_blocks, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="the extra 'distributed' is absent: this checked nothing")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options, local_directory=str(tmp_path / "dask")) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        on_workers = chosen(mapped)
        ran = client.run(
            lambda dask_worker: len([entry for entry in dask_worker.state.log if "executing" in str(entry)])
        )
    assert len(ran) == 2
    assert min(ran.values()) > 0
    monkeypatch.undo()
    assert on_workers == chosen(digits.train)
