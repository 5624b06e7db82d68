"""Whole numbers of images per class: exact sums, caps, floors, and the power-law optimum."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dqas_lib.budget.class_counts import largest_remainder, power_law_counts
from dqas_lib.core.checks import check_ratio
from dqas_lib.core.errors import InputError


@st.composite
def budgets(draw):
    """(shares, total, caps, floors) that can be met, for up to 1,000 classes."""
    n = draw(st.one_of(st.integers(1, 12), st.integers(13, 1000)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["uniform", "sparse", "wild", "zero"]))
    shares = {
        "uniform": rng.random(n),
        "sparse": rng.random(n) * (rng.random(n) < 0.3),
        "wild": 10.0 ** rng.uniform(-30, 30, n),
        "zero": np.zeros(n),
    }[kind]
    caps = rng.integers(0, draw(st.sampled_from([1, 5, 100, 5000])) + 1, n)
    floors = np.minimum(rng.integers(0, draw(st.sampled_from([0, 3])) + 1, n), caps)
    total = draw(st.integers(int(floors.sum()), int(caps.sum())))
    return shares, total, caps, floors


@settings(max_examples=300, deadline=None)
@given(budgets())
def test_largest_remainder_is_exact_within_caps_and_floors(case):
    shares, total, caps, floors = case
    counts = largest_remainder(shares, total, caps, floors)
    assert counts.dtype == np.int64
    assert counts.sum() == total
    assert (counts >= floors).all()
    assert (counts <= caps).all()


@settings(max_examples=150, deadline=None)
@given(budgets(), st.floats(0, 1))
def test_power_law_counts_are_exact_within_caps_and_floors(case, shrink):
    shares, total, caps, floors = case
    a = np.minimum(shares, 1e6)
    b = np.random.default_rng(total).uniform(0, 2, len(a))
    counts = power_law_counts(a, b, total, caps=caps, floors=floors, shrink=shrink)
    assert counts.sum() == total
    assert (counts >= floors).all()
    assert (counts <= caps).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 1000), st.integers(0, 10_000), st.integers(0, 2**32 - 1))
def test_without_bounds_a_count_differs_from_its_exact_share_by_less_than_one(n, total, seed):
    shares = np.random.default_rng(seed).random(n) + 1e-3
    counts = largest_remainder(shares, total)
    assert np.abs(counts - total * shares / shares.sum()).max() < 1


def test_largest_remainder_by_hand():
    # Hamilton's method: quotas 4.7, 3.2, 2.1 -> 4, 3, 2 and the seat left goes to the largest remainder
    assert largest_remainder(np.array([47.0, 32.0, 21.0]), 10).tolist() == [5, 3, 2]
    assert largest_remainder(np.ones(4), 6).tolist() == [2, 2, 1, 1]  # ties to the lowest class
    # the first class is full at 2: what it cannot take is divided 1 : 1
    assert largest_remainder(np.array([8.0, 1.0, 1.0]), 10, caps=np.array([2, 9, 9])).tolist() == [2, 4, 4]


def test_power_law_counts_are_the_optimum_of_a_brute_force_search():
    a, b, total = np.array([0.9, 2.0, 0.4]), np.array([0.5, 0.8, 0.3]), 30

    def loss(counts):
        return (a * np.asarray(counts, dtype=float) ** -b).sum()

    every = [c for c in itertools.product(range(1, total), repeat=3) if sum(c) == total]
    best = min(every, key=loss)
    found = power_law_counts(a, b, total)
    assert found.sum() == total
    assert loss(found) <= loss(best) * 1.001
    capped = power_law_counts(a, b, total, caps=np.array([30, 8, 30]))
    best_capped = min((c for c in every if c[1] <= 8), key=loss)
    assert capped[1] == 8
    assert loss(capped) <= loss(best_capped) * 1.001


def test_a_class_that_gains_more_gets_more_and_shrink_leads_to_equal_shares():
    a, b = np.array([1.0, 2.0, 4.0]), np.full(3, 0.5)
    counts = power_law_counts(a, b, 300)
    assert counts[0] < counts[1] < counts[2]
    # (a b / mu)^(1/1.5): doubling a multiplies n by 2^(2/3)
    np.testing.assert_allclose(counts[1:] / counts[:-1], 2 ** (2 / 3), rtol=0.03)
    assert power_law_counts(a, b, 300, shrink=1.0).tolist() == [100, 100, 100]
    half = power_law_counts(a, b, 300, shrink=0.5)
    np.testing.assert_allclose(half, (counts + 100) / 2, atol=1)


def test_a_class_that_gains_nothing_is_filled_last():
    a, b = np.array([1.0, 0.0, 1.0]), np.full(3, 0.5)
    assert power_law_counts(a, b, 10, caps=np.array([5, 5, 5])).tolist() == [5, 0, 5]
    assert power_law_counts(a, b, 12, caps=np.array([5, 5, 5])).tolist() == [5, 2, 5]
    assert power_law_counts(np.zeros(3), b, 9).tolist() == [3, 3, 3]


@pytest.mark.parametrize("ratio", [0, -0.1, 1.5, float("nan"), "0.1", None, True, [0.1]])
def test_a_ratio_outside_its_range_is_refused(ratio):
    with pytest.raises(InputError, match=r"ratio must be a number in \(0, 1\]"):
        check_ratio(ratio, 100)


def test_the_budget_is_the_rounded_share():
    assert check_ratio(0.1, 1201) == 120
    assert check_ratio(1, 1201) == 1201
    with pytest.raises(InputError, match=r"leaves no image: give at least 0\.01"):
        check_ratio(0.004, 100)


def test_impossible_totals_and_bad_values_are_refused():
    with pytest.raises(InputError, match="9 cannot be divided: the floors sum to 0, the caps to 8"):
        largest_remainder(np.ones(2), 9, caps=np.array([4, 4]))
    with pytest.raises(InputError, match="1 cannot be divided: the floors sum to 2"):
        largest_remainder(np.ones(2), 1, caps=np.array([4, 4]), floors=np.array([1, 1]))
    with pytest.raises(InputError, match="floors must lie between 0 and the caps"):
        largest_remainder(np.ones(2), 3, caps=np.array([4, 0]), floors=np.array([1, 1]))
    with pytest.raises(InputError, match="shares must be finite"):
        largest_remainder(np.array([1.0, np.nan]), 3)
    with pytest.raises(InputError, match=r"a and b must be >= 0"):
        power_law_counts(np.array([1.0, -1.0]), np.ones(2), 4)
    with pytest.raises(InputError, match="a and b must be finite"):
        power_law_counts(np.array([1.0, np.nan]), np.ones(2), 4)
    with pytest.raises(InputError, match="5 cannot be divided"):
        power_law_counts(np.ones(2), np.ones(2), 5, caps=np.array([2, 2]))
