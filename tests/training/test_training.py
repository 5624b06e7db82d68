import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.training import train as training
from dqas_lib.training.features import extract, predict
from dqas_lib.training.networks import NETWORKS, Architecture, Network, make_network
from dqas_lib.training.recipes import RECIPES, Recipe, get_recipe, scaled
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import crop, draw_view, in_bfloat16, train

SHORT = Recipe("short", steps=40, batch_size=20, lr=0.1, nesterov=True, warmup=0.1, evaluations=4)


def test_separable_classes_are_learned_and_accuracy_is_that_of_the_last_step(blobs):
    train_part, test_part = blobs.hold_out(0.3, seed=0)
    result = train(train_part, seed=0, evaluate_on=test_part, setting=Setting(recipe=SHORT))
    assert result.accuracy == 1.0
    assert result.recall.tolist() == [1.0, 1.0, 1.0]
    assert result.history["step"].tolist() == [10, 20, 30, 40]
    assert result.accuracy == result.history["accuracy"][-1]
    assert result.best_accuracy == result.history["accuracy"].max()
    assert result.history["loss"][-1] < result.history["loss"][0]
    assert result.logits.shape == (18, 3)
    expected = -torch.log_softmax(torch.from_numpy(result.logits), 1)[np.arange(18), test_part.labels].mean()
    assert result.cross_entropy == pytest.approx(float(expected), rel=1e-5)


def test_equal_seeds_give_equal_networks(blobs):
    runs = [train(blobs, seed=seed, setting=Setting(recipe=SHORT)) for seed in (3, 3, 4)]
    weights = [run.network.head.weight for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert math.isnan(runs[0].accuracy)


def test_digits_are_learned_by_the_quick_recipe(digits):
    result = train(digits.train, seed=0, evaluate_on=digits.test, setting=Setting(recipe="quick"))
    assert result.accuracy > 0.97  # 98.7 % over seeds
    assert result.accuracy == pytest.approx((result.logits.argmax(1) == digits.test.labels).mean())


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_used_where_it_is_faster_or_asked_for(monkeypatch, native):
    monkeypatch.setattr("dqas_lib.training.train.native_bfloat16", lambda: native)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [in_bfloat16("auto", cpu, size) for size in (8, 16, 32, 64)] == [False, False, native, native]
    assert in_bfloat16("auto", cuda, 8)
    assert in_bfloat16("bfloat16", cpu, 8)
    assert not in_bfloat16("float32", cpu, 64)
    assert not in_bfloat16("float32", cuda, 64)


def test_products_in_bfloat16_train_float32_weights_as_well(blobs):
    """The precision reaches the step, and only the step: float32 weights, nearly the same loss at the first one."""
    found = {
        precision: train(blobs, seed=0, setting=Setting(recipe=replace(SHORT, precision=precision, evaluations=40)))
        for precision in ("float32", "bfloat16")
    }
    exact, low = (found[precision].history["loss"] for precision in ("float32", "bfloat16"))
    assert exact[0] != low[0]
    assert low[0] == pytest.approx(exact[0], rel=0.01)  # eight bits of mantissa
    assert low[-5:].mean() == pytest.approx(exact[-5:].mean(), abs=0.15)
    assert low[-1] < 0.5 * low[0]
    assert {parameter.dtype for parameter in found["bfloat16"].network.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="precision is one of auto, float32, bfloat16; got 'half'"):
        Recipe("x", steps=1, precision="half")


def test_weights_of_zero_take_an_image_out(blobs):
    weights = (blobs.labels != 2).astype(float)
    result = train(blobs, seed=0, evaluate_on=blobs, weights=weights, setting=Setting(recipe=SHORT))
    assert result.recall[2] == 0.0
    assert result.recall[:2].tolist() == [1.0, 1.0]
    scaled_weights = train(blobs, seed=0, weights=7 * np.ones(60), setting=Setting(recipe=SHORT))
    plain = train(blobs, seed=0, setting=Setting(recipe=SHORT))
    torch.testing.assert_close(scaled_weights.network.head.weight, plain.network.head.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("weights", [np.zeros(60), -np.ones(60), np.full(60, np.nan), np.ones(3)])
def test_unusable_weights_are_refused(blobs, weights):
    with pytest.raises(InputError, match="weights must be 60 numbers >= 0 that do not sum to 0"):
        train(blobs, weights=weights, setting=Setting(recipe=SHORT))


def test_augmentation_shifts_pads_with_black_and_mirrors():
    image = torch.arange(1, 17, dtype=torch.uint8).view(1, 4, 4, 1).expand(1, 4, 4, 3)
    padded = torch.nn.functional.pad(image, (0, 0, 1, 1, 1, 1))
    rng = torch.Generator().manual_seed(0)
    batch = crop(image, torch.zeros(400, dtype=torch.int64), *draw_view(400, 1, True, rng), 4, 1)
    windows = padded[0, :, :, 0].unfold(0, 4, 1).unfold(1, 4, 1).reshape(9, 4, 4)
    allowed = {tuple(w.flatten().tolist()) for w in torch.cat([windows, windows.flip(2)])}
    seen = {tuple(b.flatten().tolist()) for b in batch[..., 0]}
    assert seen == allowed  # all 9 shifts, each also mirrored, and nothing else
    rng = torch.Generator().manual_seed(0)
    plain = crop(image, torch.zeros(200, dtype=torch.int64), *draw_view(200, 1, False, rng), 4, 1)
    assert {tuple(b.flatten().tolist()) for b in plain[..., 0]} == {tuple(w.flatten().tolist()) for w in windows}


def test_recipes_state_their_protocol():
    paper = RECIPES["paper"]
    assert (paper.epochs, paper.batch_size, paper.lr, paper.momentum, paper.weight_decay) == (200, 128, 0.1, 0.9, 5e-4)
    assert paper.kind == "fixed-epoch"
    assert paper.total_steps(5000) == math.ceil(200 * 5000 / 128)
    assert RECIPES["cpu"].kind == "fixed-step"
    assert RECIPES["cpu"].total_steps(10) == RECIPES["cpu"].total_steps(10_000) == RECIPES["cpu"].steps
    assert scaled("cpu", 0.5).steps == RECIPES["cpu"].steps // 2
    assert scaled("paper", 0.1).epochs == pytest.approx(20)


def test_unusable_settings_are_named(blobs):
    with pytest.raises(InputError, match="unknown recipe 'slow': the known ones are paper, fast, cpu, strong, quick"):
        get_recipe("slow")
    with pytest.raises(InputError, match="exactly one of epochs and steps"):
        Recipe("both", epochs=1, steps=1)
    with pytest.raises(InputError, match="at least one image"):
        train(blobs.take(np.arange(0)), setting=Setting(recipe=SHORT))
    with pytest.raises(InputError, match="unknown network 'vit'"):
        train(blobs, setting=Setting(recipe=SHORT, network="vit"))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device 'cuda' was asked for"):
            train(blobs, setting=Setting(recipe=SHORT, device="cuda"))


def test_prediction_and_features_do_not_depend_on_the_batch(blobs):
    network = train(blobs, seed=0, setting=Setting(recipe=SHORT)).network
    np.testing.assert_allclose(
        predict(network, blobs.images, batch_size=7), predict(network, blobs.images), rtol=1e-4, atol=1e-4
    )
    features = extract(network, blobs.images)
    assert features.shape == (60, network.head.in_features)
    logits = features @ network.head.weight.detach().numpy().T + network.head.bias.detach().numpy()
    np.testing.assert_allclose(logits, predict(network, blobs.images), rtol=1e-4, atol=1e-4)


def test_one_image_trains(blobs):
    result = train(blobs.take(np.array([5])), seed=0, evaluate_on=blobs, setting=Setting(recipe=SHORT))
    assert result.recall[0] == 1.0


def test_training_does_not_load_pytorchs_compiler():
    code = (
        "import sys, numpy as np, dqas_lib as d;"
        "i = d.ImageSet(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2, np.arange(4), ('a', 'b'));"
        "d.train(i, setting=d.Setting(recipe=d.Recipe('one', steps=1)));"
        "print([name for name in ('torch._dynamo', 'torch._inductor') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("network", "optimizer"), [("small_vit", "clipped_adamw"), ("small_cnn", "momentum_sgd")])
def test_a_transformer_is_trained_by_adamw_at_its_own_rate(blobs, monkeypatch, network, optimizer):
    rates = []
    monkeypatch.setattr(training, optimizer, lambda parameters, **_: rates.append)
    train(blobs, setting=Setting(network=network, recipe=replace(RECIPES["fast"], epochs=None, steps=1, warmup=0)))
    assert rates == [NETWORKS["small_vit"].adam_lr if network == "small_vit" else RECIPES["fast"].lr]
    assert NETWORKS["small_vit"].adam_lr == 1e-3


def test_a_recipe_and_a_network_can_be_added(blobs, monkeypatch):
    monkeypatch.setattr(RECIPES, "_items", dict(RECIPES))
    monkeypatch.setattr(NETWORKS, "_items", dict(NETWORKS))
    RECIPES.register(Recipe("mine", steps=3, batch_size=10))

    def build(n_classes, size):
        return Network(nn.Conv2d(3, 5, 3), 5, n_classes)

    NETWORKS.register(Architecture("tiny", build, "shows how"))
    result = train(blobs, setting=Setting(network="tiny", recipe="mine"))
    assert result.history["step"].tolist() == [3]
    assert result.network.head.in_features == 5


class TestPairedSeeds:
    """What trainings with equal seeds share, so that a difference between them is that of their images."""

    def record(self, monkeypatch, images, seed):
        """Initial weights, the positions and crops of every batch, the batches themselves."""
        batches = []

        def watched(pixels, picks, offsets, flips, side, pad):
            batch = crop(pixels, picks, offsets, flips, side, pad)
            batches.append((picks.clone(), torch.cat([*offsets, flips]), batch))
            return batch

        weights = {}

        def start(*arguments):
            network = make_network(*arguments)
            weights.update({name: value.clone() for name, value in network.state_dict().items()})
            return network

        monkeypatch.setattr(training, "crop", watched)
        monkeypatch.setattr(training, "make_network", start)
        train(images, seed=seed, setting=Setting(recipe=replace(SHORT, steps=12)))
        return weights, batches

    def test_equal_seeds_share_initial_weights_and_order(self, monkeypatch, digits):
        halves = digits.train.take(np.arange(50)), digits.train.take(np.arange(50, 100))
        (start, batches), (other_start, other_batches) = (self.record(monkeypatch, half, 7) for half in halves)
        assert all(torch.equal(start[name], other_start[name]) for name in start)
        assert len(batches) == len(other_batches) == 12
        for (picks, crops, pixels), (other_picks, other_crops, other_pixels) in zip(
            batches, other_batches, strict=True
        ):
            assert torch.equal(picks, other_picks)
            assert torch.equal(crops, other_crops)
            assert not torch.equal(pixels, other_pixels)  # other images at the same positions

    def test_different_seeds_share_neither(self, monkeypatch, digits):
        images = digits.train.take(np.arange(50))
        (start, batches), (other_start, other_batches) = (self.record(monkeypatch, images, seed) for seed in (7, 8))
        assert not torch.equal(start["head.weight"], other_start["head.weight"])
        assert not torch.equal(start["stages.0.weight"], other_start["stages.0.weight"])
        assert not any(torch.equal(one[0], two[0]) for one, two in zip(batches, other_batches, strict=True))

    def test_another_number_of_images_shares_the_weights_alone(self, monkeypatch, digits):
        sizes = digits.train.take(np.arange(50)), digits.train.take(np.arange(60))
        (start, batches), (other_start, other_batches) = (self.record(monkeypatch, part, 7) for part in sizes)
        assert all(torch.equal(start[name], other_start[name]) for name in start)
        assert not any(torch.equal(one[0], two[0]) for one, two in zip(batches, other_batches, strict=True))
