"""Stage 1 at the front door: the two orders, the two ratios, saving, and index files."""

from dataclasses import replace

import numpy as np
import pytest

from dqas_lib import AdaptiveTheta, InputError, Store, open_compressed, patchify, quantize
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods import ADQ, DQ, METHODS
from dqas_lib.patches import masks
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe, train_autoencoder
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.patches.reconstruct import dropped_psnr, reconstruction_error
from dqas_lib.pool import Pool
from dqas_lib.quantize import images_at
from dqas_lib.training.features import extract
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

RECIPE = Recipe("test", steps=30, batch_size=32, evaluations=1)
CODER = AutoencoderRecipe("test", steps=10, batch_size=16, width=16, depth=1, decoder_width=16)


@pytest.fixture(scope="module")
def pool(digits):
    return digits.train.take(np.arange(300))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def run(pool, store):
    def call(images=pool, ratio=0.1, method="dq", **options):
        setting = Setting(recipe=RECIPE, store=store)
        return quantize(images, ratio, method=method, setting=setting, **{"autoencoder": CODER, "seed": 2, **options})

    return call


class TestOrders:
    @pytest.mark.parametrize("order", ["first", "last"])
    @pytest.mark.parametrize("method", ["dq", "random"])
    def test_kept_patches_are_the_originals(self, run, pool, order, method):
        subset = run(method=method, patchify=order)
        original = pool.select(subset.ids)
        assert len(subset) == 30
        assert np.array_equal(subset.images.labels, original.labels)
        assert ((~subset.kept).sum(axis=1) == 4).all()
        known = masks.pixel_mask(subset.kept, 8)
        assert np.array_equal(subset.images.images[known], original.images[known])
        assert (subset.images.images[~known] != original.images[~known]).any()
        assert subset.settings["patchify"]["order"] == order

    def test_last_selects_what_no_patchify_selects(self, run):
        assert np.array_equal(run(patchify="last").ids, run(patchify="none").ids)

    def test_first_selects_in_the_space_of_reconstructed_images(self, run, pool):
        """Features of the reconstructed images, by the network trained on the originals, which rated their patches."""
        subset = run(patchify="first")
        reduced = patchify(pool, autoencoder=CODER, seed=2, setting=Setting(recipe=RECIPE))
        features = extract(Pool(pool, 2, Setting(recipe=RECIPE)).trained, reduced.images.images)
        given = Pool(reduced.images, 2, Setting(recipe=RECIPE), given={"features": features})
        assert np.array_equal(subset.ids, pool.ids[DQ().select(given, 30).positions])
        assert not np.array_equal(subset.ids, run().ids)
        assert np.array_equal(subset.images.images, reduced.images.select(subset.ids).images)

    def test_both_orders_have_equal_masks_and_pixels(self, run, pool):
        first, last = (run(ratio=1.0, method="random", patchify=order) for order in ("first", "last"))
        at = first.images.positions(last.ids)
        assert np.array_equal(first.kept[at], last.kept)
        assert np.abs(first.images.images[at].astype(int) - last.images.images).max() <= 1

    @pytest.mark.parametrize("method", sorted(METHODS))
    def test_every_method_takes_it(self, run, method):
        method = ADQ(steps=5) if method == "adq" else method
        subset = run(method=method, patchify="first", ratio=0.05)
        assert len(subset) == 15
        assert subset.kept.shape == (15, 16)

    def test_theta_zero_changes_nothing(self, run, pool):
        plain = run()
        for order in ("first", "last"):
            subset = run(patchify=order, theta=0)
            assert np.array_equal(subset.ids, plain.ids)
            assert np.array_equal(subset.images.images, pool.select(subset.ids).images)
            assert subset.kept is None
            assert subset.autoencoder is None

    def test_the_order_of_the_images_does_not_matter(self, run, pool):
        shuffled = pool.take(np.random.default_rng(0).permutation(len(pool)))
        one, two = run(patchify="first"), run(shuffled, patchify="first")
        assert np.array_equal(np.sort(one.ids), np.sort(two.ids))
        at = two.images.positions(one.ids)
        assert np.array_equal(one.kept, two.kept[at])

    def test_original_data_is_not_touched(self, run, pool):
        before = pool.fingerprint()
        run(patchify="first")
        run(patchify="last")
        assert pool.fingerprint() == before

    def test_the_store_keeps_what_was_trained(self, run, monkeypatch):
        first = run(patchify="first")

        def never(*_arguments, **_options):
            raise AssertionError("trained again")

        never.__module__ = "dqas_lib.training.train"  # stages name it as their code
        monkeypatch.setattr("dqas_lib.patches.patchify.train_autoencoder", never)
        monkeypatch.setattr("dqas_lib.pool.train", never)
        again = run(patchify="first")
        assert np.array_equal(first.ids, again.ids)
        assert np.array_equal(first.images.images, again.images.images)

    def test_a_ready_autoencoder_is_used(self, run, pool):
        ready = train_autoencoder(pool, patch_size=4, recipe=CODER)[0]
        subset = run(patchify="last", autoencoder=ready)
        assert subset.autoencoder is ready
        assert subset.kept.shape == (30, 4)


class TestRatios:
    @pytest.mark.parametrize(("theta", "dropped"), [(0.0, 0), (0.125, 2), (0.25, 4), (0.3, 5), (0.5, 8), (0.99, 15)])
    def test_stored_ratio_is_exact(self, pool, theta, dropped):
        """Fixed theta: the number of images is worked out before anything is trained."""
        many = ImageSet(
            np.zeros((50_000, 8, 8, 3), np.uint8), np.arange(50_000) % 10, np.arange(50_000), pool.class_names
        )
        budget = images_at(0.04, Patchifier(Pool(many), Patchify(theta)).kept_fraction, len(many))
        assert budget == round(0.04 * 50_000 * 16 / (16 - dropped))

    def test_ten_percent_stored_at_a_quarter_dropped_is_13_33_percent_of_the_images(self, run, digits):
        subset = run(digits.train, method="random", patchify="last", ratio_kind="stored")
        assert len(subset) == round(1201 * 0.1 / 0.75) == 160
        assert subset.image_ratio == pytest.approx(0.1333, abs=2e-4)
        assert subset.stored_ratio == pytest.approx(0.1, abs=1 / 1201)
        assert (subset.ratio, subset.ratio_kind) == (0.1, "stored")

    def test_without_dropping_both_ratios_are_one(self, run):
        for kind in ("image", "stored"):
            subset = run(method="random", ratio_kind=kind)
            assert subset.image_ratio == subset.stored_ratio == 0.1
        subset = run(method="random", patchify="last")
        assert (subset.image_ratio, subset.stored_ratio) == (0.1, pytest.approx(0.075))

    def test_the_largest_stored_ratio_takes_every_image(self, run):
        subset = run(method="random", patchify="last", ratio=0.75, ratio_kind="stored")
        assert len(subset) == 300
        with pytest.raises(InputError, match=r"ratio of 0.76 needs more images than there are: with 0.75 of the pat"):
            run(method="random", patchify="last", ratio=0.76, ratio_kind="stored")

    def test_adaptive_theta_meets_the_stored_ratio_of_the_pool(self, run, pool):
        rule = AdaptiveTheta(thetas=(0.125, 0.25, 0.5))
        reduced = patchify(pool, theta=rule, autoencoder=CODER, seed=2, setting=Setting(recipe=RECIPE))
        assert set((~reduced.kept).sum(axis=1)) <= {0, 2, 4, 8}
        assert len(set((~reduced.kept).sum(axis=1))) > 1
        subset = run(method="random", patchify="first", theta=rule, ratio_kind="stored")
        assert len(subset) == round(30 / reduced.kept_fraction)
        assert np.array_equal(subset.kept, reduced.kept[pool.positions(subset.ids)])
        strict = patchify(
            pool, theta=replace(rule, tolerance=0.0), autoencoder=CODER, seed=2, setting=Setting(recipe=RECIPE)
        )
        assert strict.kept_fraction > reduced.kept_fraction
        loose = patchify(
            pool, theta=replace(rule, tolerance=1e9), autoencoder=CODER, seed=2, setting=Setting(recipe=RECIPE)
        )
        assert ((~loose.kept).sum(axis=1) == 8).all()


class TestImportanceWeightedError:
    def test_the_rule_reaches_the_masks_in_both_orders_and_the_settings(self, run, pool):
        reduced = patchify(pool, autoencoder=CODER, drop="importance x error", seed=2, setting=Setting(recipe=RECIPE))
        plain = patchify(pool, autoencoder=CODER, seed=2, setting=Setting(recipe=RECIPE))
        error = reconstruction_error(plain.autoencoder, pool.images)
        assert np.array_equal(reduced.importance, plain.importance)
        expected = masks.keep_mask(masks.importance_weighted_error(plain.importance, error), 0.25)
        assert np.array_equal(reduced.kept, expected)
        assert (reduced.kept != plain.kept).any(axis=1).mean() > 0.5
        for order in ("first", "last"):
            subset = run(method="random", patchify=order, drop="importance x error")
            assert np.array_equal(subset.kept, expected[pool.positions(subset.ids)])
            assert subset.settings["patchify"]["drop"] == "importance x error"
        assert run(patchify="first").settings["patchify"]["drop"] == "importance"

    def test_what_it_drops_comes_back_better(self, run, pool):
        """The trained autoencoder reconstructs better what the rule that asks it drops."""
        psnr, coder = {}, "quick"
        for drop in ("importance", "importance x error"):
            found = patchify(pool, autoencoder=coder, drop=drop, seed=2, setting=Setting(recipe=RECIPE))
            psnr[drop], coder = dropped_psnr(pool.images, found.images.images, found.kept), found.autoencoder
        assert psnr["importance x error"] > psnr["importance"] + 3

    def test_the_order_of_the_images_does_not_matter_and_the_store_keeps_the_errors(self, run, pool, monkeypatch):
        shuffled = pool.take(np.random.default_rng(0).permutation(len(pool)))
        one = run(patchify="first", drop="importance x error")
        two = run(shuffled, patchify="first", drop="importance x error")
        assert np.array_equal(np.sort(one.ids), np.sort(two.ids))
        assert np.array_equal(one.kept, two.kept[two.images.positions(one.ids)])
        monkeypatch.setattr("dqas_lib.patches.patchify.reconstruction_error", None)
        assert np.array_equal(run(patchify="first", drop="importance x error").kept, one.kept)

    def test_with_a_ready_autoencoder_and_a_theta_for_each_image(self, run, pool):
        ready = train_autoencoder(pool, patch_size=2, recipe=CODER)[0]
        rule = AdaptiveTheta(thetas=(0.125, 0.25, 0.5))
        subset = run(patchify="last", autoencoder=ready, drop="importance x error", theta=rule)
        error = reconstruction_error(ready, pool.images)
        importance = patchify(pool, autoencoder=ready, seed=2, setting=Setting(recipe=RECIPE)).importance
        score = masks.importance_weighted_error(importance, error)[pool.positions(subset.ids)]
        for row, kept in zip(score, subset.kept, strict=True):
            assert (~kept).sum() in (0, 2, 4, 8)
            assert set(np.argsort(row, kind="stable")[: (~kept).sum()]) == set(np.flatnonzero(~kept))


class TestSaving:
    @pytest.mark.parametrize("order", ["none", "first", "last"])
    def test_saved_and_opened_it_is_the_same(self, run, tmp_path, order):
        subset = run(patchify=order, ratio_kind="stored")
        opened = open_compressed(subset.save(tmp_path / "subset"))
        assert np.array_equal(opened.images.ids, subset.ids)
        assert np.array_equal(opened.images.labels, subset.images.labels)
        assert np.abs(opened.images.images.astype(int) - subset.images.images).max() <= 1
        assert (opened.images.images != subset.images.images).mean() < 1e-3
        assert opened.kept.mean() * len(opened) / subset.n_pool == pytest.approx(subset.stored_ratio)
        assert opened.manifest["settings"]["method"]["name"] == "dq"
        assert opened.manifest["settings"]["stored_ratio"] == subset.stored_ratio

    def test_index_files(self, run, pool, tmp_path):
        subset = run(method="random")
        path = subset.save_indices(tmp_path / "indices" / "subset.npy")
        assert np.array_equal(np.load(path, allow_pickle=False), subset.ids)
        assert np.load(path).dtype == np.int64
        inside = np.load(subset.save_indices(tmp_path / "inside.npy", pool=pool))
        assert np.array_equal(pool.ids[inside], subset.ids)
        assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == ["inside.npy", "subset.npy"]

    def test_index_files_of_folders_need_the_pool(self, pool, tmp_path):
        paths = replace(pool, ids=np.array([f"train/{i:05d}.png" for i in range(300)]))
        subset = quantize(paths, 0.1, method="random", setting=Setting(recipe=RECIPE))
        with pytest.raises(InputError, match="are no positions: give pool="):
            subset.save_indices(tmp_path / "x.npy")
        found = np.load(subset.save_indices(tmp_path / "x.npy", pool=paths))
        assert np.array_equal(paths.ids[found], subset.ids)


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"patchify": "before"}, "patchify is one of none, first, last; got 'before'"),
            ({"patchify": True}, "patchify must be a text or None; got 'True'"),
            ({"ratio_kind": "bytes"}, "ratio_kind is one of image, stored; got 'bytes'"),
            ({"theta": 1.0}, r"theta, the fraction of patches to drop, must be a number in \[0, 1\); got 1.0"),
            ({"theta": -0.1, "patchify": "first"}, "theta, the fraction"),
            ({"drop": "least"}, "drop is one of importance, importance x error; got 'least'"),
            ({"patch_size": 3, "patchify": "first"}, "patch_size 3 does not divide images of 8 px"),
            ({"autoencoder": "huge", "patchify": "first"}, "unknown autoencoder 'huge'"),
        ],
    )
    def test_one_clear_sentence_before_anything_is_trained(self, run, monkeypatch, options, message):
        monkeypatch.setattr("dqas_lib.pool.train", None)
        with pytest.raises(InputError, match=message):
            run(**options)

    def test_an_autoencoder_for_another_size_or_patch(self, run, digits, pool):
        ready = train_autoencoder(pool, recipe=CODER)[0]
        large = ImageSet(np.zeros((20, 16, 16, 3), np.uint8), np.arange(20) % 2, np.arange(20), ("a", "b"))
        with pytest.raises(InputError, match="made for images of 8 px, these have 16 px"):
            run(large, ratio=0.5, patchify="first", autoencoder=ready)
        with pytest.raises(InputError, match="autoencoder's patches have 2 px, patch_size is 4"):
            run(patchify="first", autoencoder=ready, patch_size=4)
