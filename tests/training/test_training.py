import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dqas_lib.core.errors import InputError
from dqas_lib.training.features import extract, predict
from dqas_lib.training.networks import NETWORKS, make_network
from dqas_lib.training.optimizers import AdamW, MomentumSGD
from dqas_lib.training.recipes import RECIPES, Recipe, get_recipe, scaled
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import _optimizer, augment, class_recall, in_bfloat16, train

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
    monkeypatch.setattr("dqas_lib.core.devices.native_bfloat16", lambda: native)
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
    batch = augment(padded, torch.zeros(400, dtype=torch.int64), pad=1, mirror=True, rng=rng)
    windows = padded[0, :, :, 0].unfold(0, 4, 1).unfold(1, 4, 1).reshape(9, 4, 4)
    allowed = {tuple(w.flatten().tolist()) for w in torch.cat([windows, windows.flip(2)])}
    seen = {tuple(b.flatten().tolist()) for b in batch[..., 0]}
    assert seen == allowed  # all 9 shifts, each also mirrored, and nothing else
    rng = torch.Generator().manual_seed(0)
    plain = augment(padded, torch.zeros(200, dtype=torch.int64), pad=1, mirror=False, rng=rng)
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
    with pytest.raises(InputError, match="unknown recipe 'slow': the known ones are paper, fast, cpu, quick"):
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


def test_recall_by_hand_and_nan_for_an_absent_class():
    recall = class_recall(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3)
    assert recall[0] == 1.0
    assert recall[1] == pytest.approx(2 / 3)
    assert math.isnan(recall[2])


def test_training_does_not_load_pytorchs_compiler():
    code = (
        "import sys, numpy as np, dqas_lib as d;"
        "i = d.ImageSet(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2, np.arange(4), ('a', 'b'));"
        "d.train(i, recipe=d.Recipe('one', steps=1)); print('torch._dynamo' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_transformer_is_trained_by_adamw_at_its_own_rate():
    network = make_network("small_vit", 2, 8, 0)
    optimizer, peak = _optimizer(network, "small_vit", RECIPES["fast"])
    assert isinstance(optimizer, AdamW)
    assert peak == NETWORKS["small_vit"].adam_lr == 1e-3
    optimizer, peak = _optimizer(network, "small_cnn", RECIPES["fast"])
    assert isinstance(optimizer, MomentumSGD)
    assert peak == RECIPES["fast"].lr
