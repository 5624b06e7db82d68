"""Importance maps against captum, double autograd and plain loops; exact counts; cut and paste."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dqas_lib.core.errors import InputError
from dqas_lib.patches import importance as maps
from dqas_lib.patches import masks
from dqas_lib.patches.patchify import Patchify
from dqas_lib.patches.reconstruct import dropped_psnr, mean_fill
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import train


def activation_by_autograd(network, stage, images, targets, *, kind="gradcam++", batch_size=128):
    """(N, h, w) class activation maps by one backward pass a batch: Grad-CAM++ as its paper's equation 19."""
    seen, parts = [], []
    hook = stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    network.eval()
    for start in range(0, len(images), batch_size):
        logits = network(torch.from_numpy(images[start : start + batch_size]))
        known = torch.from_numpy(targets[start : start + batch_size])
        activations = seen.pop()
        gradient = torch.autograd.grad(logits.gather(1, known[:, None]).sum(), activations)[0]
        if kind == "gradcam":
            weights = gradient.mean((2, 3))
        else:
            below = 2 * gradient**2 + gradient**3 * activations.sum((2, 3), keepdim=True)
            alpha = gradient**2 / torch.where(below == 0, 1.0, below)
            weights = (alpha * gradient.relu()).sum((2, 3))
        parts.append(torch.einsum("bdhw,bd->bhw", activations, weights).relu().detach())
    hook.remove()
    return torch.cat(parts).numpy()


@pytest.fixture(scope="module")
def trained(digits):
    return train(digits.train, setting=Setting(recipe=Recipe("test", steps=60, batch_size=32, evaluations=1))).network


class TestImportance:
    def test_the_autograd_route_equals_captum(self, trained, digits):
        captum = pytest.importorskip("captum.attr")
        images = digits.test.images[:40]
        labels = digits.test.labels[:40]
        by_autograd = activation_by_autograd(trained, trained.stages, images, labels, kind="gradcam")
        reference = captum.LayerGradCam(trained, trained.stages)
        expected = reference.attribute(
            torch.from_numpy(images), target=torch.from_numpy(labels), relu_attributions=True
        )
        expected = expected.detach().numpy()[:, 0]
        assert expected.max() > 0.1
        np.testing.assert_allclose(by_autograd, expected, atol=1e-5)

    def test_closed_form_equals_autograd_route(self, trained, digits):
        images, labels = digits.test.images[:70], digits.test.labels[:70]
        ours = maps.activation_maps(trained, images, labels, batch_size=32)
        other = activation_by_autograd(trained, trained.stages, images, labels, batch_size=50)
        assert ours.max() > 0.1
        np.testing.assert_allclose(ours, other, atol=2e-5)

    def test_gradcam_pp_equals_its_definition_by_higher_derivatives(self, trained, digits):
        """Equation 19 of Grad-CAM++ with Y = exp(S) differentiated three times in each activation, by autograd."""
        stage = trained.feature_map(torch.from_numpy(digits.test.images[:3])).detach().double()
        head = trained.head.weight.detach().double(), trained.head.bias.detach().double()
        labels = digits.test.labels[:3]
        ours = maps.activation_maps(trained, digits.test.images[:3], labels)
        for i in range(3):
            activations = stage[i].clone().requires_grad_()
            flat = activations.reshape(activations.shape[0], -1)
            score = flat.mean(1) @ head[0][labels[i]] + head[1][labels[i]]
            first = torch.autograd.grad(score.exp(), activations, create_graph=True)[0]
            weights = torch.zeros(activations.shape[0], dtype=torch.float64)
            for c in range(0, activations.shape[0], 7):  # every seventh channel: each costs two backward passes
                for place in np.ndindex(*activations.shape[1:]):
                    second = torch.autograd.grad(first[(c, *place)], activations, create_graph=True)[0][(c, *place)]
                    third = torch.autograd.grad(second, activations, retain_graph=True)[0][(c, *place)]
                    below = 2 * second + third * activations[c].sum()
                    alpha = second / below if below != 0 else torch.zeros(())
                    weights[c] += (alpha * first[(c, *place)].relu()).item()
            some = torch.zeros_like(weights)
            some[::7] = weights[::7]
            expected = torch.einsum("dhw,d->hw", stage[i], some).relu() / score.detach().exp()
            pooled = stage[i].mean((1, 2))
            row = head[0][labels[i]]
            closed = torch.zeros_like(row)
            closed[::7] = (row.relu() / (2 + row * pooled))[::7]
            np.testing.assert_allclose(torch.einsum("dhw,d->hw", stage[i], closed), expected, rtol=1e-6, atol=1e-9)
            whole = torch.einsum("dhw,d->hw", stage[i], row.relu() / (2 + row * pooled))
            np.testing.assert_allclose(ours[i], whole, rtol=1e-4, atol=1e-5)

    def test_autograd_route_takes_other_heads(self):
        class Flat(nn.Module):
            def __init__(self):
                super().__init__()
                self.stage = nn.Conv2d(3, 5, 3, padding=1)
                self.head = nn.Sequential(nn.Flatten(), nn.Linear(5 * 64, 7), nn.ReLU(), nn.Linear(7, 4))

            def forward(self, images):
                return self.head(self.stage(images.permute(0, 3, 1, 2).float() / 255))

        torch.manual_seed(0)
        network = Flat()
        images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
        by_autograd = activation_by_autograd(network, network.stage, images, np.arange(6) % 4, kind="gradcam")
        x = torch.from_numpy(images)
        stage = network.stage(x.permute(0, 3, 1, 2).float() / 255).detach().requires_grad_()
        for i in range(6):
            gradient = torch.autograd.grad(network.head(stage[i : i + 1])[0, i % 4], stage)[0][i]
            expected = (stage[i] * gradient.mean((1, 2))[:, None, None]).sum(0).relu().detach().numpy()
            np.testing.assert_allclose(by_autograd[i], expected, atol=1e-6)

    def test_an_image_does_not_depend_on_its_batch(self, trained, digits):
        alone = maps.activation_maps(trained, digits.test.images[5:6], digits.test.labels[5:6])
        together = maps.activation_maps(trained, digits.test.images[:50], digits.test.labels[:50])
        np.testing.assert_allclose(alone[0], together[5], atol=1e-5)

    def test_refuses_labels_that_do_not_fit(self, trained, digits):
        with pytest.raises(InputError, match=r"labels must be 2 classes in \[0, 10\)"):
            maps.activation_maps(trained, digits.test.images[:2], np.array([0, 10]))

    def test_no_images_no_maps(self, trained, digits):
        assert len(maps.activation_maps(trained, digits.test.images[:0], digits.test.labels[:0])) == 0


class TestPatchOperator:
    @pytest.mark.parametrize(("side", "size", "patch"), [(4, 32, 4), (2, 8, 2), (4, 64, 8), (3, 24, 3), (1, 8, 4)])
    def test_equals_enlarging_and_averaging(self, side, size, patch):
        activations = np.random.default_rng(0).random((5, side, side)).astype(np.float32)
        enlarged = nn.functional.interpolate(torch.from_numpy(activations)[:, None], size=(size, size), mode="bilinear")
        expected = nn.functional.avg_pool2d(enlarged, patch).numpy().reshape(5, -1)
        np.testing.assert_allclose(maps.patch_importance(activations, size, patch), expected, atol=1e-6)

    def test_rows_sum_to_one(self):
        np.testing.assert_allclose(maps.patch_operator(4, 32, 4).sum(axis=1), 1)


class TestDrop:
    def test_by_hand(self):
        importance = np.array([[3.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
        expected = [[True, False, True, True], [False, True, True, True]]
        assert masks.keep_mask(importance, 0.25).tolist() == expected
        assert masks.keep_mask(importance, 0.5).tolist() == [[True, False, True, False], [False, False, True, True]]

    @settings(max_examples=60, deadline=None)
    @given(theta=st.floats(0, 1, exclude_max=True), n_patches=st.sampled_from([1, 4, 16, 64]), seed=st.integers(0, 99))
    def test_exact_counts_and_least_important_first(self, theta, n_patches, seed):
        importance = np.random.default_rng(seed).integers(0, 4, (5, n_patches)).astype(float)
        kept = masks.keep_mask(importance, theta)
        wanted = min(round(theta * n_patches), n_patches - 1)
        assert ((~kept).sum(axis=1) == wanted).all()
        for row, mask in zip(importance, kept, strict=True):
            ranked = sorted(range(n_patches), key=lambda i: (row[i], i))
            assert sorted(np.flatnonzero(~mask)) == sorted(ranked[:wanted])

    def test_importance_times_error_by_hand(self):
        importance = np.array([[4.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
        error = np.array([[1.0, 5.0, 3.0, 0.0], [7.0, 2.0, 0.0, 1.0]], np.float32)
        # the floor is a thousandth of the mean, 0.002: a patch without importance counts by its error, but little;
        # an image without any importance is ranked by error alone
        expected = [[4.002, 0.01, 6.006, 0.0], [7.0, 2.0, 0.0, 1.0]]
        assert masks.importance_weighted_error(importance, error) == pytest.approx(np.array(expected))
        kept = masks.keep_mask(masks.importance_weighted_error(importance, error), 0.5)
        assert kept.tolist() == [[True, False, True, False], [True, True, False, False]]
        assert masks.keep_mask(importance, 0.5)[0].tolist() == [True, False, False, True]  # the paper's rule differs

    def test_refuses_an_unknown_rule(self):
        assert Patchify(drop="importance x error").drop == "importance x error"
        with pytest.raises(InputError, match="drop is one of importance, importance x error; got 'random'"):
            Patchify(drop="random")

    def test_theta_for_every_image(self):
        importance = np.tile(np.arange(16.0), (4, 1))
        kept = masks.keep_mask(importance, np.array([0, 0.25, 0.5, 0.99]))
        assert kept.sum(axis=1).tolist() == [16, 12, 8, 1]

    @pytest.mark.parametrize("theta", [-0.1, 1, 1.5, float("nan"), "0.2", True, None])
    def test_refuses_theta_outside(self, theta):
        with pytest.raises(InputError, match=r"theta, the fraction of patches to drop, must be a number in \[0, 1\)"):
            masks.keep_mask(np.zeros((2, 4)), theta)

    def test_refuses_thetas_that_do_not_fit(self):
        for theta in (np.array([0.1, 1.0]), np.array([0.1]), np.array([np.nan, 0.1])):
            with pytest.raises(InputError, match="theta must be one fraction"):
                masks.keep_mask(np.zeros((2, 4)), theta)

    def test_refuses_nan_importance(self):
        with pytest.raises(InputError, match="without NaN"):
            masks.keep_mask(np.array([[0.0, np.nan]]), 0.5)

    def test_patch_sizes(self):
        assert [masks.default_patch_size(size) for size in (8, 16, 28, 32, 64, 96)] == [2, 2, 4, 4, 8, 12]
        with pytest.raises(InputError, match="31 has no divisor"):
            masks.default_patch_size(31)
        with pytest.raises(InputError, match="patch_size 5 does not divide images of 32 px: give one of 1, 2, 4, 8"):
            masks.grid_of(32, 5)
        for wrong in (0, 33, 2.0, True):
            with pytest.raises(InputError, match="patch_size must be a whole number"):
                masks.grid_of(32, wrong)

    def test_kept_fraction_is_what_is_really_kept(self):
        assert masks.kept_fraction(0.25, 32, 4) == 0.75
        assert masks.kept_fraction(0.2, 32, 4) == 51 / 64
        assert masks.kept_fraction(0.25, 32, 4) == masks.keep_mask(np.zeros((1, 64)), 0.25).mean()


class TestAdaptive:
    def test_largest_theta_within_the_limit(self):
        shifts = np.array([[0.1, 0.5, 0.1], [0.2, 0.1, 0.2], [0.4, 0.1, 0.3]])
        found = masks.largest_theta(shifts, np.array([0.1, 0.2, 0.4]), np.array([0.25, 0.3, 1.0]))
        assert found.tolist() == [0.2, 0.0, 0.4]

    def test_refuses_thetas_that_do_not_rise(self):
        with pytest.raises(InputError, match="thetas must rise"):
            masks.AdaptiveTheta(thetas=(0.5, 0.25))
        with pytest.raises(InputError, match="theta, the fraction of patches to drop, must"):
            masks.AdaptiveTheta(thetas=(0.5, 1.0))

    def test_neighbor_distance_equals_plain_loops(self):
        rng = np.random.default_rng(0)
        z = rng.standard_normal((50, 6))
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        labels = rng.integers(0, 3, 50)
        labels[labels == 2] = 0
        labels[7] = 2  # alone in its class
        expected = np.zeros(3)
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            expected[label] = np.mean([min(np.linalg.norm(z[i] - z[j]) for j in members if j != i) for i in members])
        np.testing.assert_allclose(masks.neighbor_distance(z, labels), expected, atol=1e-5)


class TestCutAndPaste:
    def test_patches_are_numbered_row_by_row(self):
        images = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3)
        cut = masks.to_patches(images, 2)
        assert cut.shape == (1, 4, 2, 2, 3)
        assert np.array_equal(cut[0, 1], images[0, :2, 2:])
        assert np.array_equal(cut[0, 2], images[0, 2:, :2])
        assert np.array_equal(masks.from_patches(cut), images)

    def test_mask_and_patches_agree(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
        kept = masks.keep_mask(rng.random((7, 16)), 0.3)
        pasted = masks.paste(images, np.zeros_like(images), kept)
        cut = masks.to_patches(images, 2)
        cut[~kept] = 0
        assert np.array_equal(pasted, masks.from_patches(cut))

    def test_mean_fill_by_hand(self):
        images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
        images[0, :2, :2] = 100
        images[0, :2, 2:] = 50
        images[0, 2:] = 255
        filled = mean_fill(images, np.array([[True, True, False, False]]))
        assert (filled[0, 2:] == 75).all()
        assert (filled[0, :2] == images[0, :2]).all()

    def test_psnr_by_hand(self):
        images = np.zeros((2, 4, 4, 3), dtype=np.uint8)
        other = images.copy()
        other[0, :2, :2] = 10  # dropped
        other[1, 2:, 2:] = 200  # kept: does not count
        kept = np.ones((2, 4), dtype=bool)
        kept[:, 0] = False
        expected = 10 * np.log10(255**2 / 50)
        assert dropped_psnr(images, other, kept) == pytest.approx(expected)
        assert dropped_psnr(images, images, kept) == np.inf
