"""Checks of kinds: what is taken, and the sentence for what is not."""

import math

import numpy as np
import pytest
import torch

from dqas_lib.core.checks import check_ratio, number, one_of, whole_number
from dqas_lib.core.devices import check_device
from dqas_lib.core.errors import InputError


def test_whole_numbers():
    assert whole_number("rounds", np.int64(3)) == 3
    assert type(whole_number("rounds", np.uint8(3))) is int
    assert whole_number("rounds", 0, low=0, high=0) == 0
    for value in (0, -1, 2.0, "3", None, True, np.array([1])):
        with pytest.raises(InputError, match="rounds must be a whole number >= 1; got"):
            whole_number("rounds", value)
    with pytest.raises(InputError, match=r"size must be a whole number from 2 to 4,096; got 5000"):
        whole_number("size", 5000, 2, 4096)


def test_numbers_and_their_ends():
    assert number("theta", np.float32(0.5), 0, 1) == 0.5
    assert number("theta", torch.tensor(0.25), 0, 1) == 0.25
    assert number("theta", 1, 0, 1, ends="(]") == 1.0
    assert number("decay", 0, 0) == 0.0
    for value in (0, 1.1, math.nan, "1", None, True, np.array([0.5])):
        with pytest.raises(InputError, match=r"theta must be a number in \(0, 1\]; got"):
            number("theta", value, 0, 1, ends="(]")
    for value in (-1, math.inf, math.nan):
        with pytest.raises(InputError, match="decay must be a number >= 0; got"):
            number("decay", value, 0)
    with pytest.raises(InputError, match="decay must be a number above 0; got 0"):
        number("decay", 0, 0, ends="(]")


def test_one_of_some_names():
    assert one_of("fit", "pad", ("crop", "pad")) == "pad"
    for value in ("Pad", None, 3, ["pad"]):
        with pytest.raises(InputError, match=r"fit is one of crop, pad; got"):
            one_of("fit", value, ("crop", "pad"))


def test_ratios():
    assert check_ratio(0.1, 1201) == 120
    assert check_ratio(1, 3) == 3
    for ratio in (0, -0.1, 1.5, math.nan, "0.1", None, True):
        with pytest.raises(InputError, match=r"ratio must be a number in \(0, 1\]; got"):
            check_ratio(ratio, 100)
    with pytest.raises(InputError, match=r"ratio 0.001 of 100 images leaves no image: give at least 0.01"):
        check_ratio(0.001, 100)
    with pytest.raises(InputError, match="no images to select from"):
        check_ratio(0.5, 0)


def test_devices():
    assert check_device("cpu") == torch.device("cpu")
    assert check_device("auto").type in ("cpu", "cuda")
    for device in ("gpu", "", None, []):
        with pytest.raises(InputError, match=r"unknown device .*: give 'cpu', 'cuda' or 'auto'"):
            check_device(device)
