"""Methods that look at distances: Herding, k-Center, Contextual Diversity, Facility Location, GraphCut."""

import os

import numpy as np
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.methods.geometry import (
    ContextualDiversity,
    Herding,
    KCenter,
    farthest_first,
    greedy_herding,
    squared_distances,
    symmetric_divergences,
)
from dqas_lib.methods.greedy import KEEP_BYTES, greedy_facility_location, nearest
from dqas_lib.methods.submodular import FacilityLocation, GraphCut
from dqas_lib.training.features import unit_rows

os.environ["NUMBA_DISABLE_JIT"] = (
    "1"  # apricot's loops take half a minute to compile, and milliseconds to run as they are
)
apricot = pytest.importorskip("apricot")


def plain_herding(z: np.ndarray, n_picks: int) -> list[int]:
    picked: list[int] = []
    for _ in range(n_picks):
        gap = [
            np.inf if j in picked else np.linalg.norm(z.mean(axis=0) - z[[*picked, j]].mean(axis=0))
            for j in range(len(z))
        ]
        picked.append(int(np.argmin(gap)))
    return picked


def test_herding_is_the_greedy_of_its_definition():
    z = np.random.default_rng(0).normal(size=(40, 3))
    assert greedy_herding(z, 12).tolist() == plain_herding(z, 12)


def test_herdings_running_mean_is_closer_than_random(toy):
    """A flipped sign picks the farthest, whose mean is far worse than random's."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=(500, 8)) + 2
    mean = z.mean(axis=0)
    chosen = greedy_herding(z, 50)
    for k in (1, 5, 20, 50):
        ours = np.linalg.norm(z[chosen[:k]].mean(axis=0) - mean)
        random = np.median([np.linalg.norm(z[rng.permutation(500)[:k]].mean(axis=0) - mean) for _ in range(200)])
        assert ours < 0.5 * random
    assert np.linalg.norm(z[chosen].mean(axis=0) - mean) < 0.05


def test_herding_by_class_uses_the_class_mean(toy):
    # on a line through the origin all unit features agree, so angles are used: 0, 10, 20 and 60, 70, 80 degrees
    angles = np.deg2rad([0, 10, 20, 60, 70, 80])
    pool = toy([0, 0, 0, 1, 1, 1], features=np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert Herding().select(pool, 2).positions.tolist() == [1, 4]  # the middle of each class
    assert Herding(balance="free").select(pool, 1).positions[0] in (2, 3)  # the middle of all is at 40 degrees


def test_k_center_goes_to_the_farthest():
    points = np.array([[0.0], [1.0], [10.0], [4.0], [5.5]])
    # from 0: the farthest is 10; then 4 and 5.5 are at 4 and 4.5 from their nearest; then 4 (1.5) against 1 (1)
    assert farthest_first(squared_distances(points), 5, 0).tolist() == [0, 2, 4, 3, 1]


def test_k_center_is_within_twice_the_best_radius(toy):
    rng = np.random.default_rng(3)
    centers = rng.normal(0, 50, (6, 2))
    points = centers[np.repeat(np.arange(6), 30)] + rng.uniform(-1, 1, (180, 2))
    for seed in range(5):
        chosen = KCenter().select(toy([0] * 180, seed=seed, features=points), 6).positions
        assert sorted(chosen // 30) == [0, 1, 2, 3, 4, 5]  # one of each cluster
        radius = np.linalg.norm(points[:, None] - points[chosen][None], axis=2).min(axis=1).max()
        assert radius <= 2 * np.sqrt(2) * 1  # no center can do better than half a square's diagonal
    firsts = {int(KCenter().select(toy([0] * 180, seed=s, features=points), 1).positions[0]) for s in range(20)}
    assert len(firsts) > 5  # the first image is drawn by the seed


def test_contextual_diversity_uses_the_symmetric_divergence(toy):
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.69, 0.2, 0.11], [0.05, 0.05, 0.9]])
    found = symmetric_divergences(np.log(p) + 3)(1)  # a constant on the logits changes nothing
    by_hand = [0.5 * ((a * np.log(a / p[1])).sum() + (p[1] * np.log(p[1] / a)).sum()) for a in p]
    assert found == pytest.approx(by_hand, abs=1e-12)
    for seed in range(6):
        chosen = ContextualDiversity().select(toy([0] * 4, n_classes=3, seed=seed, logits=np.log(p)), 3).positions
        assert {0, 2} - set(chosen)  # never both of the two that are predicted alike


def plain_facility_location(kernel: np.ndarray, n_picks: int) -> list[int]:
    picked: list[int] = []
    for _ in range(n_picks):
        values = [-1 if j in picked else kernel[:, [*picked, j]].max(axis=1).sum() for j in range(len(kernel))]
        picked.append(int(np.argmax(values)))
    return picked


@pytest.mark.parametrize("keep", [KEEP_BYTES, 0])
def test_facility_location_is_apricots_and_the_plain_greedy(monkeypatch, keep):
    """Kept in memory or in blocks of columns: the picks are the same."""
    monkeypatch.setattr("dqas_lib.methods.greedy.KEEP_BYTES", keep)
    for seed in range(4):
        z = unit_rows(np.random.default_rng(seed).normal(size=(50, 6))).astype(np.float64)
        kernel = 0.5 + 0.5 * z @ z.T
        ours = greedy_facility_location(lambda rows, kernel=kernel: kernel[:, rows], 50, 15)
        assert ours.tolist() == plain_facility_location(kernel, 15)
        theirs = apricot.FacilityLocationSelection(15, metric="precomputed").fit(kernel)
        assert ours.tolist() == theirs.ranking.tolist()


def test_a_kernel_kept_in_single_precision_gives_as_good_a_choice(monkeypatch):
    """Near-ties may fall otherwise; the value reached is the same to 1e-6."""
    monkeypatch.setattr("dqas_lib.methods.greedy.KEEP_BYTES", 4 * 50 * 51 // 2)
    for seed in range(4):
        z = unit_rows(np.random.default_rng(seed).normal(size=(50, 6))).astype(np.float64)
        kernel = 0.5 + 0.5 * z @ z.T
        ours = greedy_facility_location(lambda rows, kernel=kernel: kernel[:, rows], 50, 15)
        value = kernel[:, ours].max(axis=1).sum()
        assert value == pytest.approx(kernel[:, plain_facility_location(kernel, 15)].max(axis=1).sum(), rel=1e-6)


def test_facility_location_takes_the_largest_cluster_first(toy):
    angles = np.deg2rad([0, 1, 2, 3, 4, 90, 91, 92, 180])
    pool = toy([0] * 9, features=np.stack([np.cos(angles), np.sin(angles)], axis=1))
    chosen = FacilityLocation().select(pool, 3).positions
    # 5 at 2, then the far ends: one of each direction
    assert len({0 if c < 5 else 1 if c < 8 else 2 for c in chosen}) == 3
    with pytest.raises(InputError, match="n_picks must lie between 0 and the 3 rows; got 4"):
        greedy_facility_location(lambda rows: np.eye(3)[:, rows], 3, 4)


def test_nearest_prefers_the_earliest_chosen():
    kernel = np.array([[1.0, 0.2, 0.2], [0.2, 1.0, 0.5], [0.2, 0.5, 1.0]])
    assert nearest(lambda rows: kernel[:, rows], np.array([2, 1])).tolist() == [0, 1, 0]


def test_graph_cut_is_apricots(toy):
    """apricot subtracts s_jj as well, which is the same for all unit rows."""
    for seed in range(4):
        features = np.random.default_rng(seed).normal(size=(50, 5))
        z = unit_rows(features).astype(np.float64)
        theirs = apricot.GraphCutSelection(15, metric="precomputed", alpha=1.0).fit(0.5 + 0.5 * z @ z.T)
        ours = GraphCut().select(toy([0] * 50, features=features), 15).positions
        assert ours.tolist() == theirs.ranking.tolist()
    with pytest.raises(InputError, match="lambda_val must be a number above 0; got 0"):
        GraphCut(lambda_val=0)
