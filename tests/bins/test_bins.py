"""GraphCut and the bins against a plain O(n^2) reference written here."""

import numpy as np
import pytest
from clouds import cloud
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_lib.bins.bins import make_bins, recursive_bins
from dqas_lib.bins.graph_cut import TIE, greedy_graph_cut
from dqas_lib.core.errors import InputError
from dqas_lib.training.features import unit_rows


def plain_graph_cut(z, n_picks, lambda_val=1.0):
    """The definition: full kernel matrix, float64, gains equal within the tie go to the lowest position."""
    z = z.astype(np.float64)
    kernel = 0.5 + 0.5 * z @ z.T
    typical, covered, left = lambda_val * kernel.sum(axis=0), np.zeros(len(z)), np.ones(len(z), dtype=bool)
    picks = []
    for _ in range(n_picks):
        gain = np.where(left, typical - 2 * covered, -np.inf)
        best = np.flatnonzero(gain >= gain.max() - TIE * len(z))[0]
        picks.append(best)
        left[best] = False
        covered += kernel[best]
    return np.array(picks, dtype=np.int64)


def plain_bins(z, n_bins):
    left, numbers, ranks = np.arange(len(z)), np.full(len(z), -1), np.full(len(z), -1)
    sizes = [len(part) for part in np.array_split(np.arange(len(z)), n_bins)]
    for number, size in enumerate(sizes):
        order = left[plain_graph_cut(z[left], size)]
        numbers[order], ranks[order] = number, np.arange(size)
        left = np.array([i for i in left if i not in set(order)], dtype=np.int64)
    return numbers, ranks


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 320),
    d=st.integers(1, 24),
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["normal", "relu", "duplicates", "grid", "tight"]),
    share=st.floats(0, 1),
    lambda_val=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_every_pick_equals_the_plain_reference(n, d, seed, kind, share, lambda_val):
    z = unit_rows(cloud(n, d, seed, kind))
    n_picks = round(share * n)
    fast = greedy_graph_cut(z, n_picks, lambda_val=lambda_val)
    assert fast.tolist() == plain_graph_cut(z, n_picks, lambda_val).tolist()


@pytest.mark.parametrize(("n", "d", "kind"), [(1200, 64, "relu"), (1200, 128, "normal"), (900, 32, "tight")])
def test_every_pick_of_a_large_class_equals_the_plain_reference(n, d, kind):
    z = unit_rows(cloud(n, d, 1, kind))
    assert greedy_graph_cut(z, n).tolist() == plain_graph_cut(z, n).tolist()


@pytest.mark.parametrize(("n", "n_bins"), [(1, 10), (7, 10), (10, 10), (64, 10), (103, 7), (50, 1)])
def test_bins_equal_the_plain_reference(n, n_bins):
    z = unit_rows(cloud(n, 8, 3, "relu"))
    numbers, ranks = recursive_bins(z, n_bins)
    expected_numbers, expected_ranks = plain_bins(z, n_bins)
    assert numbers.tolist() == expected_numbers.tolist()
    assert ranks.tolist() == expected_ranks.tolist()


def test_equal_and_zero_features_are_picked_in_order_of_position():
    assert greedy_graph_cut(unit_rows(np.ones((400, 3))), 400).tolist() == list(range(400))
    assert greedy_graph_cut(np.zeros((5, 3)), 5).tolist() == [0, 1, 2, 3, 4]


def test_worked_by_hand_the_crowd_first_then_what_it_does_not_cover():
    # s: 0 and 1 equal, 2 at a right angle. sums: 2.5, 2.5, 2. Pick 0 (tie to the lowest).
    # then gain(1) = 2.5 - 2 * 1 = 0.5 and gain(2) = 2 - 2 * 0.5 = 1: the lone one overtakes the duplicate.
    z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert greedy_graph_cut(z, 3).tolist() == [0, 2, 1]


def test_bins_are_cut_class_by_class_whatever_the_order_of_the_images():
    z = unit_rows(cloud(90, 6, 5, "normal"))
    labels = np.arange(90) % 3
    bins = make_bins(z, labels, 5)
    for label in range(3):
        members = np.flatnonzero(labels == label)
        alone, _ = recursive_bins(z[members], 5)
        assert bins.bin[members].tolist() == alone.tolist()
        assert np.bincount(bins.bin[members]).tolist() == [6] * 5
        order = bins.order(members)
        assert sorted(order) == members.tolist()
        assert (np.diff(bins.bin[order]) >= 0).all()
    shuffled = np.random.default_rng(0).permutation(90)
    again = make_bins(z[shuffled], labels[shuffled], 5)
    assert again.bin.tolist() == bins.bin[shuffled].tolist()


def test_unusable_arguments_are_named():
    z = unit_rows(cloud(10, 3, 0, "normal"))
    with pytest.raises(InputError, match="n_picks must lie between 0 and the 10 rows; got 11"):
        greedy_graph_cut(z, 11)
    with pytest.raises(InputError, match="n_bins must be a whole number >= 1; got 0"):
        recursive_bins(z, 0)
    with pytest.raises(InputError, match="10 features need as many labels; got 9"):
        make_bins(z, np.zeros(9, dtype=int))


@pytest.mark.parametrize("at_once", [1, 3])
def test_how_many_classes_are_cut_at_once_changes_nothing(at_once, monkeypatch):
    z = unit_rows(cloud(400, 12, 8, "relu"))
    labels = np.random.default_rng(2).integers(0, 5, size=400)
    monkeypatch.setattr("dqas_lib.bins.bins._blas_threads", lambda: at_once)
    bins = make_bins(z, labels, 4)
    for label in range(5):
        numbers, ranks = plain_bins(unit_rows(z[labels == label]), 4)
        assert bins.bin[labels == label].tolist() == numbers.tolist()
        assert bins.rank[labels == label].tolist() == ranks.tolist()
