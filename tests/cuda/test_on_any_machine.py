"""What would break or mislead on a card, held on any machine: repeatability, precision, and who computes what once."""

import multiprocessing
import os
import time

import numpy as np
import pytest
import torch
from pretended import pretended_card

from dqas_lib.core import store as store_module
from dqas_lib.core.devices import repeatable
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches import autoencoder_training
from dqas_lib.patches.importance import activation_maps
from dqas_lib.reproduce import runs
from dqas_lib.reproduce.profiles import load_profile
from dqas_lib.training import features as features_module
from dqas_lib.training.features import extract, predict, stage_maps
from dqas_lib.training.networks import make_network
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
SHORT = Recipe("short", steps=2, batch_size=4)


def flags() -> tuple[bool, ...]:
    """Whether what is computed now can be repeated: cuDNN's choice, TF32, and attention by plain products."""
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    return cudnn.deterministic, not cudnn.benchmark, not cudnn.allow_tf32, not cuda.flash_sdp_enabled()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_trainings_and_features_on_a_card_can_be_repeated(digits, monkeypatch):
    before, found = flags(), []
    with repeatable(CPU):
        assert flags() == before
    some = digits.train.take(np.arange(12))
    recipe = autoencoder_training.AutoencoderRecipe("short", steps=1, batch_size=4, width=32, depth=1, decoder_width=32)
    error = autoencoder_training.functional.mse_loss
    monkeypatch.setattr(
        autoencoder_training.functional, "mse_loss", lambda *given: found.append(flags()) or error(*given)
    )
    with pretended_card(monkeypatch):
        train(some, setting=Setting("small_cnn", SHORT, CUDA), after_step=lambda step, model: found.append(flags()))
        autoencoder_training.train_autoencoder(some, recipe=recipe, device="cuda")
        network = make_network("small_cnn", 10, 8, 0).to(CUDA)
        network.stages.register_forward_hook(lambda *_: found.append(flags()))
        extract(network, some.images, device=CUDA)
    assert found == [(True, True, True, True)] * 4
    assert flags() == before


def test_in_bfloat16_only_the_stages_are(digits, monkeypatch):
    images = digits.test.images[:200]
    network = make_network("small_cnn", 10, 8, 0)
    network.normalize_by(digits.train)
    exact = extract(network, images)
    monkeypatch.setattr(features_module, "_in_bfloat16", lambda network, device: True)
    rounded = extract(network, images)
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, rtol=0.05, atol=0.05)
    assert len(np.unique(rounded)) > 0.2 * len(np.unique(exact))
    head = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    np.testing.assert_allclose(predict(network, images), rounded @ head[0].T + head[1], rtol=1e-5, atol=1e-5)
    maps = activation_maps(network, images[:3], digits.test.labels[:3])
    with torch.inference_mode():
        stages = next(stage_maps(network, images[:3], CPU, 3)).numpy()
    weights = head[0][digits.test.labels[:3]]
    weights = np.maximum(weights, 0) / (2 + weights * stages.mean((2, 3)))
    np.testing.assert_allclose(np.maximum(np.einsum("bdhw,bd->bhw", stages, weights), 0), maps, rtol=1e-4, atol=1e-5)


def test_a_network_is_looked_at_in_the_precision_of_its_training(digits):
    some = digits.train.take(np.arange(12))
    for precision, low in (("auto", True), ("bfloat16", True), ("float32", False)):
        recipe = Recipe("short", steps=1, batch_size=4, precision=precision)
        network = train(some, setting=Setting("small_cnn", recipe)).network
        assert features_module._in_bfloat16(network, CUDA) == low
        assert not features_module._in_bfloat16(network, CPU)


def test_a_data_set_is_measured_once(digits, monkeypatch):
    counted, count = [], torch.bincount
    monkeypatch.setattr(torch, "bincount", lambda *given, **options: counted.append(1) or count(*given, **options))
    some = digits.train.take(np.arange(12))
    for seed in range(2):
        network = train(some, setting=Setting("small_cnn", SHORT), seed=seed).network
    assert len(counted) == 3
    np.testing.assert_allclose(network.mean, some.images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(network.std, some.images.std((0, 1, 2)), rtol=1e-6)


def _compute(root, marks, seconds):
    def work():
        (marks / str(os.getpid())).write_text("")
        time.sleep(seconds)
        if seconds > 5:
            os._exit(1)  # ends without a result, as when it is killed
        return {"value": np.arange(3)}

    assert Store(root).load_or_compute("features", {"seed": 0}, work)["value"].tolist() == [0, 1, 2]


def test_of_two_processes_that_want_one_result_one_computes_it(tmp_path):
    (marks := tmp_path / "marks").mkdir()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_compute, args=(tmp_path / "cache", marks, 1.0)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(marks.iterdir())) == 1
    assert [path.suffix for path in (tmp_path / "cache" / "features").iterdir()] == [".npz"]


def test_a_claim_ends_with_its_process(tmp_path):
    (marks := tmp_path / "marks").mkdir()
    killed = multiprocessing.get_context("fork").Process(target=_compute, args=(tmp_path / "cache", marks, 600.0))
    killed.start()
    while not list(marks.iterdir()):
        time.sleep(0.01)
    killed.kill()
    _compute(tmp_path / "cache", marks, 0.0)
    assert len(list(marks.iterdir())) == 2


def test_provenance_names_the_card(tmp_path, monkeypatch):
    store_module.versions.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92000)
    try:
        store = Store(tmp_path)
        store.put("features", {}, {"x": np.ones(1)}, seconds=0)
        assert store.provenance("features", {})["versions"]["gpu"].endswith(", cuDNN 92000")
    finally:
        store_module.versions.cache_clear()


def test_the_profiles_device_reaches_its_notebooks(monkeypatch):
    profile = load_profile("cifar10")
    assert {run.parameters["DEVICE"] for run in profile.runs} == {"cuda"}
    assert all("DEVICE" not in run.parameters for run in load_profile("quick").runs)  # ids of a CPU's runs stay
    assert load_profile("quick", device="cuda").runs[0].parameters["DEVICE"] == "cuda"


def test_a_run_on_a_card_has_some_threads(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    run = load_profile("quick").runs[0]
    for device, threads in (("cpu", "1"), ("cuda", "4")):
        site = runs.Site("quick", device, tmp_path, tmp_path, tmp_path, tmp_path, {})
        assert runs.environment(runs.Job(run, site, "0", 1), tmp_path)["OMP_NUM_THREADS"] == threads


needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card, and PyTorch sees none here")


@needs_card
@pytest.mark.parametrize("network", ["resnet9", "resnet18", "small_vit"])
def test_twice_on_a_card_gives_equal_bits(network):
    pixels = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    images = ImageSet(pixels, np.arange(300) % 10, np.arange(300), tuple("abcdefghij"))
    setting = Setting(network, Recipe("short", steps=50, batch_size=64), "cuda")
    first, again = (train(images, setting=setting, evaluate_on=images).logits for _ in range(2))
    assert np.array_equal(first, again)
