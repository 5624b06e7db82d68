"""The CUDA path, walked on a pretended card: no tensor is on a wrong device, no training step waits for the card."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretended import pretended_card

from dqas_lib.bins import bins as bins_module
from dqas_lib.bins import on_gpu
from dqas_lib.bins.bins import make_bins
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods import METHODS
from dqas_lib.patches.autoencoder import MaskedAutoencoder, Shape
from dqas_lib.patches.autoencoder_training import AUTOENCODERS, train_autoencoder
from dqas_lib.patches.importance import activation_maps
from dqas_lib.patches.reconstruct import reconstruct, reconstruction_error
from dqas_lib.quantize import quantize
from dqas_lib.training import train as training
from dqas_lib.training.contrastive import contrastive_embedding
from dqas_lib.training.features import extract
from dqas_lib.training.networks import make_network
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch: autocast for CUDA without CUDA
CUDA = torch.device("cuda")
SHORT = Recipe("short", steps=2, batch_size=4, nesterov=True, warmup=0.1, label_smoothing=0.05)
CODER = replace(AUTOENCODERS["quick"], name="short", steps=3, batch_size=8)


def noise(size: int, n: int = 24) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    return ImageSet(pixels, np.repeat(np.arange(3), n // 3), np.arange(n), tuple("abc"))


@pytest.fixture
def card(monkeypatch):
    with pretended_card(monkeypatch) as found:
        yield found


@pytest.mark.parametrize("network", ["small_cnn", "resnet9", "resnet18", "small_vit", "vgg16"])  # resnet50: as resnet18
def test_networks_train_and_are_judged(card, network):
    images = noise(8 if network == "small_cnn" else 32)
    result = train(images, setting=Setting(network, SHORT, CUDA), evaluate_on=images, weights=np.ones(24))
    assert {weight.device.type for weight in result.network.parameters()} == {"cuda"}
    assert result.logits.shape == (24, 3)


def test_a_training_step_waits_for_nothing_and_uploads_at_most_4_kb(card, monkeypatch):
    monkeypatch.setattr(training, "AHEAD", 4)
    seen = []

    def note(step, model):
        if step == 1:  # the pixels are there, and what was drawn for the first four steps
            card.clear()
        if step == 8:
            seen.append((sum(card.uploads), sum(card.waits.values())))

    recipe = replace(SHORT, steps=8, batch_size=256)
    train(noise(8, n=300), setting=Setting("small_cnn", recipe, CUDA), after_step=note)
    ((uploaded, waits),) = seen
    assert waits == 0
    assert 256 < uploaded / 4 <= 4096


def test_a_step_of_the_autoencoder_waits_for_nothing(card):
    train_autoencoder(noise(32), recipe=CODER, importance=np.random.default_rng(0).random((24, 64)), device="cuda")
    assert card.waits == Counter({"copy to the host": 1})  # the losses, at the end


def test_contrastive_features(card):
    setting = Setting("small_cnn", SHORT, CUDA)
    assert contrastive_embedding(noise(8), setting=setting, seed=0, steps=2, batch_size=8).shape == (24, 64)


def test_features_importance_and_reconstruction(card):
    images = noise(32)
    network = make_network("resnet9", 3, 32, 0).to(CUDA)
    assert extract(network, images.images, device=CUDA).shape == (24, 128)
    assert activation_maps(network, images.images, images.labels, device=CUDA, batch_size=16).shape == (24, 4, 4)
    coder = MaskedAutoencoder(Shape(32, 4, width=32, depth=1, decoder_width=32))
    kept = np.arange(64) % 4 > np.zeros((24, 1))
    assert reconstruct(coder, images.images, kept, device="cuda", batch_size=16).shape == images.images.shape
    assert reconstruction_error(coder, images.images, device="cuda").shape == (24, 64)


@pytest.mark.parametrize("is_kernel", [True, False])
def test_a_pick_of_the_bins_waits_for_nothing(card, is_kernel):
    rows = torch.zeros(2, 8, 8 if is_kernel else 5, dtype=torch.float64, device=CUDA)
    run = on_gpu._Run(rows, is_kernel=is_kernel)
    run.start(torch.ones(2, 8, dtype=torch.bool, device=CUDA), torch.full((2,), 3, device=CUDA), 1.0, 1e-12)
    card.clear()
    run.fill(3)
    assert run.order.is_cuda
    assert not card.waits
    assert not card.uploads


def ready() -> MaskedAutoencoder:
    """An autoencoder that is not trained anew: its weights, which a pretended card has not, would be written down."""
    return MaskedAutoencoder(Shape(8, 2, width=32, depth=1, decoder_width=32))


def bins_of_the_cpu(features, labels, n_bins, *, lambda_val, tie, device):
    """How many images a bin gets depends on numbers, which a pretended card has not."""
    assert str(device).startswith("cuda")
    bins = make_bins(np.asarray(features), labels, n_bins, lambda_val=lambda_val)
    return bins.bin, bins.rank


@pytest.mark.parametrize("method", sorted({*METHODS} - {"deepfool"}))  # its batches shrink as numbers say
def test_methods_select(card, monkeypatch, method):
    monkeypatch.setattr(bins_module, "recursive_bins_on_device", bins_of_the_cpu)
    setting = Setting("small_cnn", SHORT, CUDA)
    assert len(quantize(noise(8), 0.5, method=method, setting=setting, autoencoder=ready())) == 12


@pytest.mark.parametrize(("order", "drop"), [("first", "importance x error"), ("last", "importance")])
def test_patchify_in_both_orders(card, monkeypatch, order, drop):
    monkeypatch.setattr(bins_module, "recursive_bins_on_device", bins_of_the_cpu)
    setting = Setting("small_cnn", SHORT, CUDA)
    selection = quantize(
        noise(8), 0.5, method="dqas-plus", setting=setting, patchify=order, drop=drop, autoencoder=ready()
    )
    assert len(selection) == 12
    assert next(selection.autoencoder.parameters()).is_cuda


def test_planted_faults_are_caught(card, monkeypatch):
    network = make_network("small_cnn", 3, 8, 0).to(CUDA)
    with pytest.raises(RuntimeError, match=r"[Dd]evice"):
        network(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(AssertionError, match="on the card"):
        network.mean.numpy()
    for look in (float, bool, int, torch.Tensor.item, torch.Tensor.cpu):
        card.clear()
        look(network.mean[0])
        assert sum(card.waits.values()) == 1
    crop = training.crop

    def looks(*arguments):
        assert arguments[2].sum() != 7
        return crop(*arguments)

    monkeypatch.setattr(training, "crop", looks)
    card.clear()
    train(noise(8), setting=Setting("small_cnn", SHORT, CUDA))
    assert card.waits["item"] >= SHORT.steps
