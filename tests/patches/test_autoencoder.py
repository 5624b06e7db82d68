"""The masked autoencoder: what it may see, what comes back bit for bit, weights as files, a tiny ViT-MAE."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches import masks, reconstruct
from dqas_lib.patches.autoencoder import (
    MaskedAutoencoder,
    PretrainedAutoencoder,
    Shape,
    from_bytes,
    smooth_fill,
    to_bytes,
)
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe, _batches, get_recipe, train_autoencoder
from dqas_lib.patches.reconstruct import dropped_psnr, mean_fill, reconstruction_error
from dqas_lib.training.networks import sincos_positions

TINY = AutoencoderRecipe("tiny", steps=80, batch_size=32, lr=4e-3, width=32, depth=1, decoder_width=32)


@pytest.fixture(scope="module")
def trained(digits):
    return train_autoencoder(digits.train, recipe=TINY, seed=1)


def random_masks(n, n_patches, theta, seed=0):
    return masks.keep_mask(np.random.default_rng(seed).random((n, n_patches)), theta)


class TestReconstruct:
    @pytest.mark.parametrize("theta", [0, 0.25, 0.5, 0.99])
    def test_kept_patches_come_back_bit_for_bit(self, trained, digits, theta):
        images = digits.test.images[:50]
        kept = random_masks(50, 16, theta)
        reconstructed = reconstruct.reconstruct(trained[0], images, kept)
        assert reconstructed.dtype == np.uint8
        assert reconstructed.shape == images.shape
        known = masks.pixel_mask(kept, 8)
        assert np.array_equal(reconstructed[known], images[known])
        if theta == 0:
            assert np.array_equal(reconstructed, images)
        else:
            assert (reconstructed[~known] != images[~known]).any()

    def test_dropped_pixels_are_never_seen(self, trained, digits):
        images = digits.test.images[:40]
        kept = random_masks(40, 16, 0.4)
        known = masks.pixel_mask(kept, 8)[..., None]
        spoiled = np.where(known, images, np.uint8(255) - images)
        assert not np.array_equal(spoiled, images)
        first = reconstruct.reconstruct(trained[0], images, kept)
        second = reconstruct.reconstruct(trained[0], spoiled, kept)
        assert np.array_equal(first, second)

    def test_images_with_different_numbers_of_kept_patches(self, trained, digits):
        images = digits.test.images[:30]
        thetas = np.tile([0.0, 0.25, 0.5], 10)
        kept = masks.keep_mask(np.random.default_rng(0).random((30, 16)), thetas)
        together = reconstruct.reconstruct(trained[0], images, kept, batch_size=7).astype(int)
        for i in range(30):
            alone = reconstruct.reconstruct(trained[0], images[i : i + 1], kept[i : i + 1]).astype(int)
            assert np.abs(alone[0] - together[i]).max() <= 1

    def test_original_images_are_not_touched(self, trained, digits):
        before = digits.test.images[:20].copy()
        reconstruct.reconstruct(trained[0], digits.test.images[:20], random_masks(20, 16, 0.5))
        assert np.array_equal(digits.test.images[:20], before)

    def test_better_than_smooth_and_mean_fill_on_held_out_digits(self, trained, digits):
        images, kept = digits.test.images, random_masks(len(digits.test), 16, 0.25)
        reconstructed = reconstruct.reconstruct(trained[0], images, kept)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        known = torch.from_numpy(masks.pixel_mask(kept, 8))[:, None].float()
        smooth = smooth_fill(x, known).permute(0, 2, 3, 1).round().numpy().astype(np.uint8)
        learned = dropped_psnr(images, reconstructed, kept)
        assert learned > dropped_psnr(images, smooth, kept) + 1
        assert learned > dropped_psnr(images, mean_fill(images, kept), kept) + 2

    def test_refuses_what_does_not_fit(self, trained, digits, blobs):
        large = np.zeros((2, 32, 32, 3), dtype=np.uint8)
        with pytest.raises(InputError, match="made for images of 8 px, these have 32 px"):
            reconstruct.reconstruct(trained[0], large, np.ones((2, 64), dtype=bool))
        with pytest.raises(InputError, match=r"masks of 2 images must be \(2, 16\); got \(2, 4\)"):
            reconstruct.reconstruct(trained[0], digits.test.images[:2], np.ones((2, 4), dtype=bool))
        with pytest.raises(InputError, match="without a single kept patch"):
            reconstruct.reconstruct(trained[0], digits.test.images[:1], np.zeros((1, 16), dtype=bool))


def first_batch(images, importance, recipe):
    rng = torch.Generator().manual_seed(0)
    x, kept, n_kept = next(_batches(images, 4, importance, recipe, torch.device("cpu"), rng))
    assert (kept.sum(1) == n_kept).all()
    return x, kept


class Gray:
    """An autoencoder that fills everything with the same gray, and remembers what it was shown."""

    def __init__(self, size, patch_size, level):
        self.size, self.patch_size, self.level, self.seen = size, patch_size, level, []

    def fill(self, images, kept):
        self.seen.append(kept.numpy())
        return torch.full(images.shape, float(self.level))


class TestReconstructionError:
    def test_by_hand_each_patch_hidden_once_among_known_neighbors(self):
        images = np.full((3, 8, 8, 3), 100, np.uint8)
        images[1, 2:4, 6:8] = 130  # patch 7 of a 4 x 4 grid
        images[2, :2, :2, 0] = 112  # one channel of patch 0
        coder = Gray(8, 2, 100)
        error = reconstruction_error(coder, images)
        assert error.dtype == np.float32
        expected = np.zeros((3, 16))
        expected[1, 7], expected[2, 0] = 30**2, 12**2 / 3
        assert error == pytest.approx(expected)
        hidden = ~np.stack(coder.seen)
        assert hidden.shape == (4, 3, 16)
        assert (hidden.sum(axis=0) == 1).all()
        cells = np.argwhere(hidden[0, 0].reshape(4, 4))
        assert np.abs(cells[:, None] - cells).max(axis=2)[~np.eye(4, dtype=bool)].min() == 2  # no two hidden ones touch

    def test_blocks_change_nothing(self, trained, digits, monkeypatch):
        images = digits.test.images[:50]
        whole = reconstruction_error(trained[0], images)
        monkeypatch.setattr(reconstruct, "BLOCK", 16)
        assert reconstruction_error(trained[0], images) == pytest.approx(whole, rel=0.05, abs=1.0)

    @pytest.mark.parametrize(("size", "patch", "passes"), [(9, 3, 4), (8, 4, 4), (8, 8, 0)])
    def test_odd_grids_and_single_patches(self, size, patch, passes):
        coder = Gray(size, patch, 10)
        error = reconstruction_error(coder, np.zeros((2, size, size, 3), np.uint8))
        assert len(coder.seen) == passes
        assert error.tolist() == [[100.0 if passes else 0.0] * (size // patch) ** 2] * 2

    def test_is_what_reconstruction_is_off_by(self, trained, digits):
        images = digits.test.images[:40]
        error = reconstruction_error(trained[0], images)
        part = np.arange(16) // 4 % 2 * 2 + np.arange(16) % 2
        kept = np.broadcast_to(part != 3, (40, 16))
        reconstructed = reconstruct.reconstruct(trained[0], images, kept)
        off = 10 ** (-dropped_psnr(images, reconstructed, kept) / 10) * 255**2
        assert error[:, part == 3].mean() == pytest.approx(off, rel=1e-5)


class TestNetwork:
    def test_before_training_it_gives_the_smooth_filling(self, digits):
        model = MaskedAutoencoder(Shape(8, 2)).eval()
        images, kept = digits.test.images[:10], random_masks(10, 16, 0.3)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        known = torch.from_numpy(masks.pixel_mask(kept, 8))[:, None].float()
        smooth = smooth_fill(x, known).permute(0, 2, 3, 1)
        with torch.inference_mode():
            filled = model.fill(torch.from_numpy(images), torch.from_numpy(kept))
        dropped = ~masks.pixel_mask(kept, 8)
        np.testing.assert_allclose(filled.numpy()[dropped], smooth.numpy()[dropped], atol=1e-2)

    @pytest.mark.parametrize("size", [8, 12, 15])
    def test_smooth_fill_keeps_the_known_and_lies_between_them(self, size):
        rng = torch.Generator().manual_seed(0)
        x = torch.rand(4, 3, size, size, generator=rng)
        mask = (torch.rand(4, 1, size, size, generator=rng) < 0.4).float()
        filled = smooth_fill(x, mask)
        known = mask.bool().expand_as(x)
        assert torch.equal(filled[known], x[known])
        low, high = x[known].min() - 1e-6, x[known].max() + 1e-6
        assert ((filled >= low) & (filled <= high)).all()
        assert torch.equal(smooth_fill(torch.where(known, x, 9.0), mask), filled)

    def test_smooth_fill_of_a_constant_is_the_constant(self):
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., 2:4, 2:4] = 1
        np.testing.assert_allclose(smooth_fill(torch.full((1, 3, 8, 8), 7.0), mask), 7)

    def test_positions_are_those_of_the_mae_paper(self):
        positions = sincos_positions(3, 8)
        for row in range(3):
            for column in range(3):
                expected = []
                for place in (row, column):
                    angles = [place / 10000 ** (i / 2) for i in range(2)]
                    expected += [np.sin(a) for a in angles] + [np.cos(a) for a in angles]
                np.testing.assert_allclose(positions[row * 3 + column], expected, atol=1e-6)

    def test_cut_is_the_cut_of_patches(self, digits):
        model = MaskedAutoencoder(Shape(8, 4))
        images = digits.test.images[:3]
        cut = model.cut(torch.from_numpy(images))
        assert np.array_equal(
            (cut * model.std[0] + model.mean[0]).numpy(), masks.to_patches(images, 4).reshape(3, 4, 48)
        )


class TestTraining:
    def test_loss_falls_and_equal_seeds_give_equal_weights(self, trained, digits):
        assert trained[1][-5:].mean() < 0.8 * trained[1][0]
        assert trained[1].shape == (80,)
        short = replace(TINY, steps=5)
        one, two, other = (train_autoencoder(digits.train, recipe=short, seed=s)[0] for s in (3, 3, 4))
        same = [torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)]
        assert all(same)
        assert not torch.equal(one.head.weight, other.head.weight)

    def test_batches_drop_equally_many_and_follow_importance(self, digits):
        importance = np.tile(np.arange(16.0)[::-1], (len(digits.train), 1))
        recipe = replace(TINY, batch_size=64, thetas=(0.25, 0.25), importance_fraction=1.0)
        x, kept = first_batch(digits.train, importance, recipe)
        known = {image.tobytes() for image in digits.train.images}
        assert all(image.numpy().tobytes() in known for image in x)
        assert (kept.sum(1) == 12).all()
        dropped = (~kept).float().mean(0)
        assert dropped[13:].min() > 0.9
        assert dropped[:8].max() == 0
        _, kept = first_batch(digits.train, importance, replace(recipe, importance_fraction=0.0))
        assert (~kept).float().mean(0).min() > 0.05

    def test_a_mirrored_image_has_mirrored_masks(self):
        importance = np.tile(np.repeat([[0.0, 1, 2, 3]], 4, axis=0).ravel(), (64, 1))  # dropped: the left column
        pixels = np.zeros((64, 8, 8, 3), dtype=np.uint8)
        pixels[:, :, :2] = 255  # the left column of patches is white
        images = ImageSet(pixels, np.arange(64) % 2, np.arange(64), ("a", "b"), mirror=True)
        recipe = replace(TINY, batch_size=64, thetas=(0.25, 0.25), importance_fraction=1.0)
        x, kept = first_batch(images, importance, recipe)
        white = x[:, ::2, ::2, 0].reshape(64, 16) == 255
        assert torch.equal(white, ~kept)
        assert 10 < (x[:, 0, 0, 0] == 0).sum() < 54

    def test_refuses_what_does_not_fit(self, digits):
        with pytest.raises(InputError, match="patch_size 3 does not divide images of 8 px"):
            train_autoencoder(digits.train, patch_size=3, recipe=TINY)
        with pytest.raises(InputError, match="needs at least one image"):
            train_autoencoder(digits.train.take(np.arange(0)), recipe=TINY)
        with pytest.raises(InputError, match=r"importance must be \(1201, 16\); got \(3, 16\)"):
            train_autoencoder(digits.train, recipe=TINY, importance=np.zeros((3, 16)))
        with pytest.raises(InputError, match="unknown autoencoder 'tiny'"):
            get_recipe("tiny")
        with pytest.raises(InputError, match="thetas"):
            replace(TINY, thetas=(0.5, 0.2))


class TestFiles:
    def test_saved_and_loaded_it_reconstructs_the_same(self, trained, digits):
        content = to_bytes(trained[0])
        loaded = from_bytes(content)
        assert loaded.shape == trained[0].shape
        images, kept = digits.test.images[:64], random_masks(64, 16, 0.4)
        assert np.array_equal(
            reconstruct.reconstruct(loaded, images, kept), reconstruct.reconstruct(trained[0], images, kept)
        )
        weights = sum(p.numel() for p in loaded.parameters())
        assert len(content) < 2 * weights + 8000

    def test_damaged_content_is_named(self, trained):
        content = to_bytes(trained[0])
        for name, spoiled in (
            ("empty", b""),
            ("short", content[: len(content) // 2]),
            ("text", b"hello, this is no autoencoder at all"),
            ("shape", content.replace(b'\\"width\\": 32', b'\\"width\\": 36', 1)),
            ("strange", content.replace(b'\\"width\\": 32', b'\\"wodth\\": 32', 1)),
        ):
            with pytest.raises(DataError, match=rf"{name}\.safetensors holds no autoencoder"):
                from_bytes(spoiled, name=f"{name}.safetensors")


class TestPretrained:
    @pytest.fixture
    def folder(self, tmp_path):
        """A ViT-MAE of the real architecture, tiny and with random weights."""
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTMAEConfig(
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
            decoder_num_attention_heads=2,
            decoder_hidden_size=16,
            decoder_num_hidden_layers=1,
            decoder_intermediate_size=32,
            norm_pix_loss=False,
        )
        torch.manual_seed(0)
        transformers.ViTMAEForPreTraining(config).save_pretrained(tmp_path / "vit")
        return tmp_path / "vit"

    def test_reconstructs_from_kept_patches_only(self, folder):
        model = PretrainedAutoencoder(folder, size=32)
        assert model.patch_size == 4
        images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
        kept = random_masks(5, 64, 0.25)
        known = masks.pixel_mask(kept, 32)
        reconstructed = reconstruct.reconstruct(model, images, kept)
        assert np.array_equal(reconstructed[known], images[known])
        spoiled = np.where(known[..., None], images, 255 - images)
        assert np.abs(reconstruct.reconstruct(model, spoiled, kept).astype(int) - reconstructed).max() <= 1
        changed = np.where(known[..., None], 255 - images, images)
        assert (reconstruct.reconstruct(model, changed, kept)[~known] != reconstructed[~known]).mean() > 0.1
        assert model.describe() == {"kind": "pretrained", "source": str(folder), "size": 32, "patch_size": 4}

    def test_weights_that_are_absent_or_of_the_other_kind(self, folder, tmp_path):
        with pytest.raises(DataError, match="no ViT-MAE weights"):
            PretrainedAutoencoder(tmp_path / "nowhere", size=32)
        config = (folder / "config.json").read_text().replace('"norm_pix_loss": false', '"norm_pix_loss": true')
        (folder / "config.json").write_text(config)
        with pytest.raises(InputError, match="predicts normalized patches"):
            PretrainedAutoencoder(folder, size=32)


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'dqas-kit\[pretrained\]'"):
        PretrainedAutoencoder("facebook/vit-mae-base", size=32)
