"""DQ in gradient space, ADQ, BGFDQ, and the controls of DQAS."""

import numpy as np
import pytest
import torch

from dqas_lib.active.counts import ErrorCounts
from dqas_lib.active.estimators import Margin
from dqas_lib.active.round import Rounds
from dqas_lib.bins.bins import recursive_bins
from dqas_lib.bins.graph_cut import greedy_graph_cut
from dqas_lib.budget.initialization import Proportional
from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.methods.adq import ADQ, diversity, sampling_ratios, texture_level
from dqas_lib.methods.bgfdq import BGFDQ, greedy_cover
from dqas_lib.methods.controls import BinsRandom, ShuffledCounts
from dqas_lib.methods.dq import DQ, gradient_bins
from dqas_lib.methods.dqas import DQAS
from dqas_lib.methods.greedy import greedy_graph_cut_gradients
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.contrastive import contrastive_embedding, contrastive_loss
from dqas_lib.training.gradients import Gradients
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TINY = Recipe("tiny", steps=30, batch_size=16, lr=0.05)


def written_out(gradients: Gradients) -> np.ndarray:
    return np.einsum("ic,id->icd", gradients.g, gradients.h).reshape(len(gradients), -1)


def test_gradient_bins_are_those_of_the_long_vectors(toy):
    """C(d + 1) = 3 * 6 numbers an image, never written out by the library."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 25, 7])
    pool = toy(labels, features=np.maximum(rng.normal(size=(72, 5)), 0), logits=rng.normal(size=(72, 3)))
    long = written_out(pool.gradients.unit())
    assert np.linalg.norm(long, axis=1) == pytest.approx(np.ones(72))
    assert np.array_equal(greedy_graph_cut_gradients(pool.gradients.unit(), 30), greedy_graph_cut(long, 30))
    ours = gradient_bins(pool, 5)
    for label in range(3):
        bin_, rank = recursive_bins(long[labels == label], 5)
        assert np.array_equal(ours.bin[labels == label], bin_)
        assert np.array_equal(ours.rank[labels == label], rank)
    chosen = DQ(space="gradients", n_bins=5).select(pool, 36).positions
    assert np.bincount(labels[chosen]).tolist() == [20, 13, 3]  # 20, 12.5, 3.5: ties to the lowest class
    assert np.bincount(ours.bin[chosen][labels[chosen] == 0]).tolist() == [4] * 5  # the same from every bin
    with pytest.raises(InputError, match="DQ: space is one of features, gradients; got 'pixels'"):
        DQ(space="pixels")
    with pytest.raises(InputError, match="n_picks must lie between 0 and the 72 rows; got 73"):
        greedy_graph_cut_gradients(pool.gradients, 73)
    no_logits = Pool(pool.images, given={"features": pool.given["features"]})
    with pytest.raises(InputError, match="method 'dq' needs gradients"):
        DQ(space="gradients").select(no_logits, 3)


# ------------------------------------------------------------------------------------------------ ADQ


def test_texture_level_of_a_ramp_and_of_flat_gray():
    """Sobel of a ramp of slope s is 8 s inside; at the two edges (reflected) it is half of that."""
    ramp = np.repeat((10 * np.arange(8, dtype=np.uint8))[None, :], 8, axis=0)
    images = np.stack([np.repeat(ramp[..., None], 3, axis=2), np.full((8, 8, 3), 77, dtype=np.uint8)])
    assert texture_level(images) == pytest.approx([0.5 * (6 * 80 + 2 * 40) / 8, 0.0], abs=1e-9)
    turned = np.ascontiguousarray(images.transpose(0, 2, 1, 3))
    assert texture_level(turned) == pytest.approx(texture_level(images))


def test_diversity_by_hand():
    assert diversity(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1 - 1 / 3)
    assert diversity(np.array([[1.0, 0.0]])) == 0.0
    assert diversity(np.array([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(2.0)


def test_sampling_ratios_are_the_papers_formula_and_sum_to_one():
    rep, div, sizes = np.array([1.0, 3.0]), np.array([0.5, 0.5]), np.array([10, 30])
    # I = ((1/4 + 1/2) / 2, (3/4 + 1/2) / 2) = (3/8, 5/8); N / sum N = (1/4, 3/4)
    assert sampling_ratios(rep, div, sizes, 1.0) == pytest.approx([3 / 8, 5 / 8])
    assert sampling_ratios(rep, div, sizes, 0.5) == pytest.approx([5 / 16, 11 / 16])
    assert sampling_ratios(np.zeros(2), np.zeros(2), sizes, 1.0) == pytest.approx([0.5, 0.5])


def test_contrastive_loss_by_hand():
    """Two images, views alike: -log of e^(1/t) / (e^(1/t) + 2 e^0), as the other image is orthogonal."""
    views = torch.eye(2)
    expected = np.log(np.exp(2.0) + 2) - 2.0
    assert contrastive_loss(views, views, 0.5).item() == pytest.approx(expected, rel=1e-6)
    assert contrastive_loss(views, views.flip(0), 0.5).item() == pytest.approx(expected + 2.0, rel=1e-6)


def test_contrastive_training_tells_images_apart(blobs):
    before = contrastive_embedding(blobs, seed=0, steps=0, setting=Setting(network="small_cnn"))
    after = contrastive_embedding(blobs, seed=0, steps=25, setting=Setting(network="small_cnn"))
    assert after.shape == (60, 64)
    assert np.linalg.norm(after, axis=1) == pytest.approx(np.ones(60), rel=1e-5)
    assert diversity(after) > diversity(before)
    assert np.array_equal(after, contrastive_embedding(blobs, seed=0, steps=25, setting=Setting(network="small_cnn")))


def test_adq_draws_more_from_the_bins_that_score_higher(digits, tmp_path):
    train = digits.train.take(np.flatnonzero(digits.train.labels < 2))
    found = quantize(
        train, 0.3, method=ADQ(n_bins=4, alpha=1.0, steps=10), setting=Setting(recipe=TINY, store=Store(tmp_path))
    )
    trace = found.trace
    assert trace["quota"].sum() == len(found) == 72
    assert trace["quota"][:2].sum(axis=1).tolist() == [36, 36]
    drawn = [
        np.bincount(trace["bin"][train.positions(found.ids)][found.images.labels == c], minlength=4) for c in (0, 1)
    ]
    assert np.array_equal(drawn, trace["quota"][:2])
    for label in (0, 1):
        sizes = np.bincount(trace["bin"][train.labels == label])
        shares = sizes * sampling_ratios(trace["representativeness"][label], trace["diversity"][label], sizes, 1.0)
        assert np.abs(trace["quota"][label] - 36 * shares / shares.sum()).max() <= 1
    assert len({tuple(row) for row in trace["quota"][:2]} | {(9, 9, 9, 9)}) > 1  # not DQ's equal shares
    again = quantize(train, 0.3, method=ADQ(n_bins=4, alpha=1.0, steps=10), setting=Setting(recipe=TINY))
    assert again.ids.tolist() == found.ids.tolist()
    with pytest.raises(InputError, match=r"ADQ: alpha must be a number in \[0, 1\]; got 2"):
        ADQ(alpha=2)


# ------------------------------------------------------------------------------------------------ BGFDQ


def test_bgfdq_covers_before_it_repeats():
    """Clusters of 5, 3 and 1 on a circle, k = 2: the first pick covers three of the largest cluster ..."""
    angles = np.deg2rad([0, 1, 2, 3, 4, 90, 91, 92, 200])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    picks = greedy_cover(features, 2, 9)
    # 1, 2, 3 each cover a triple in the first cluster and 6 covers the second; 6 and 2 are closest to what they cover
    cluster = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2])
    assert set(cluster[picks[:2]]) == {0, 1}
    assert picks[0] in (1, 2, 3)
    assert picks[1] == 6
    assert sorted(picks) == list(range(9))
    # 0 ... 4 is covered by two more picks at most, and the lone image at 200 degrees by itself
    assert set(cluster[picks[:4]]) == {0, 1, 2}


def plain_cover(near: list[set[int]], n_picks: int) -> list[int]:
    """Sizes of the newly covered sets of the plain greedy, whatever the ties."""
    open_, taken, gains = set(range(len(near))), set(), []
    for _ in range(n_picks):
        if not open_:
            open_ = set(range(len(near))) - taken
        best = max((j for j in range(len(near)) if j not in taken), key=lambda j: len(near[j] & open_))
        gains.append(len(near[best] & open_))
        taken.add(best)
        open_ -= near[best]
    return gains


def test_each_pick_covers_as_much_as_any_could():
    from dqas_lib.methods.cal import nearest_neighbors

    features = np.random.default_rng(3).normal(size=(80, 4))
    near = nearest_neighbors(features, 4)
    covers = [{j, *near[j].tolist()} for j in range(80)]
    picks = greedy_cover(features, 4, 40)
    open_, taken = set(range(80)), set()
    for pick in picks:
        if not open_:
            open_ = set(range(80)) - taken
        assert len(covers[pick] & open_) == max(len(covers[j] & open_) for j in range(80) if j not in taken)
        taken.add(int(pick))
        open_ -= covers[pick]
    assert plain_cover(covers, 1)[0] == 5
    with pytest.raises(InputError, match=r"neighbors .* must be a whole number >= 1; got 0"):
        BGFDQ(neighbors=0)


# ------------------------------------------------------------------------------------------------ controls


def test_controls_are_dqas_with_a_part_taken_away(digits, tmp_path):
    train = digits.train.take(np.flatnonzero(digits.train.labels < 4))
    store = Store(tmp_path)
    options = {"setting": Setting(recipe=TINY, store=store)}
    bins_random = quantize(train, 0.1, method=BinsRandom(), **options)
    assert (
        bins_random.ids.tolist()
        == quantize(
            train, 0.1, method=DQAS(initialization=Proportional(), rounds=None), patchify="none", **options
        ).ids.tolist()
    )
    assert np.abs(bins_random.class_counts[:4] - len(bins_random) / 4).max() <= 1
    small = DQAS("none", Proportional(), rounds=Rounds(learners=1), counts=ErrorCounts(0.0), samples=Margin())
    shuffled = quantize(train, 0.1, method=ShuffledCounts(small), **options)
    whole = quantize(train, 0.1, method=small, **options)
    assert len(shuffled) == len(whole) == 48
    assert shuffled.class_counts.tolist() != whole.class_counts.tolist()
