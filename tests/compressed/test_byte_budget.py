"""Budgets in bytes: met on disk, chosen by a law, and refused in clear words."""

import dataclasses
import os
import warnings

import numpy as np
import pytest

from dqas_lib import InputError, open_compressed, quantize
from dqas_lib.compressed.byte_budget import best_number, bytes_asked, fit_law
from dqas_lib.core.store import Store
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TINY = Setting(network="small_cnn", recipe=Recipe("tiny", steps=4, batch_size=16))


@pytest.fixture(scope="module")
def some(digits):
    return digits.train.take(np.arange(600))


def on_disk(folder):
    return sum(entry.stat().st_size for entry in os.scandir(folder))


@pytest.mark.parametrize("n_bytes", [9_000, 15_000, 22_000])
@pytest.mark.parametrize(
    "forced",
    [{"quality": 70}, {"n_images": 300}, {"codec": "lossless"}, {"codec": "auto", "n_images": 300}],
    ids=["quality", "n_images", "lossless", "auto"],
)
def test_a_budget_is_met_on_disk(some, tmp_path, n_bytes, forced):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        subset = quantize(some, bytes=n_bytes, method="random", setting=TINY, **{"codec": "webp", **forced})
    taken = on_disk(subset.save(tmp_path / "set"))
    assert taken == subset.total_bytes <= n_bytes
    assert taken >= 0.99 * n_bytes or any("leave the rest unused" in str(each.message) for each in caught)
    opened = open_compressed(tmp_path / "set")
    assert opened.reproduced
    assert opened.images.fingerprint() == subset.images.fingerprint()
    assert len(subset) == forced.get("n_images", len(subset))
    assert taken >= 0.99 * n_bytes or len(subset) in (600, 300)


def test_more_bytes_than_everything_takes_keep_everything_lossless(some):
    with pytest.warns(UserWarning, match=r"600 images, lossless, take [0-9,]+ of the [0-9,]+ bytes and leave the rest"):
        subset = quantize(some, bytes="150%", method="random", setting=TINY)
    assert subset.sheets is None
    assert np.array_equal(subset.images.images, some.select(subset.ids).images)


def test_the_law_chooses_and_its_pilots_are_kept(some, tmp_path):
    setting = dataclasses.replace(TINY, store=Store(tmp_path / "store"))
    first = quantize(some, bytes=9_000, codec="webp", method="random", setting=setting)
    assert 0.99 * 9_000 <= first.total_bytes <= 9_000
    assert len(list((tmp_path / "store" / "storage pilot").iterdir())) == 9


def test_a_law_is_found_again_and_its_best_number_is_where_both_errors_balance():
    n, b = (values.ravel() for values in np.meshgrid([1000, 4000, 16000], [100.0, 200.0, 500.0]))
    law = fit_law(np.stack([n, b, 0.05 + 3 * n**-0.5 + 20 * b**-1.0], axis=1))
    assert law.error(n, b) == pytest.approx(0.05 + 3 * n**-0.5 + 20 * b**-1.0, abs=0.004)
    chosen = best_number(law, 2_000_000, 0, 3.0, (40.0, 1000.0), 50_000)
    every = np.arange(100, 46_000)
    expected = every[np.argmin(3 * every**-0.5 + 20 / np.minimum(2_000_000 / every - 3, 1000))]
    assert chosen == pytest.approx(expected, rel=0.25)
    assert best_number(law, 1_000, 2_000, 3.0, (40.0, 1000.0), 50_000) == 1


@pytest.mark.parametrize(("asked", "expected"), [(7, 7), ("12 MB", 12_000_000), ("1.5KiB", None), ("10%", 50)])
def test_amounts(asked, expected):
    if expected is None:
        with pytest.raises(InputError, match=r"or a text such as '12 MB' or '10%'; got '1\.5KiB'"):
            bytes_asked(asked, lambda: 500)
    else:
        assert bytes_asked(asked, lambda: 500) == expected


@pytest.mark.parametrize("asked", [0, -3, 1.5, True, None, "ten", "", "0%", "0 MB"])
def test_amounts_that_are_none(asked):
    with pytest.raises(InputError, match="bytes"):
        bytes_asked(asked, lambda: 500)


def test_what_cannot_be_done_is_said(some):
    def ask(**given):
        return quantize(some, **{"codec": "webp", "method": "random", "setting": TINY, **given})

    with pytest.raises(InputError, match="too few: the smallest set, one image, takes"):
        ask(bytes=100, quality=50)
    with pytest.raises(InputError, match=r"300 images take .* at quality 0, labels, ids and manifest included"):
        ask(bytes=3_000, n_images=300)
    with pytest.raises(InputError, match=r"300 images, WebP, quality 90, take .* more than 3,000"):
        ask(bytes=3_000, n_images=300, quality=90)
    with pytest.raises(InputError, match="a ratio or bytes, not both"):
        ask(ratio=0.1, bytes=9_000)
    with pytest.raises(InputError, match="belong to a budget in bytes"):
        ask(ratio=0.1, quality=9)
    with pytest.raises(InputError, match="quality of WEBP must be a whole number from 0 to 100; got 101"):
        ask(bytes=9_000, quality=101)
    with pytest.warns(UserWarning, match="600 images, lossless, take .* leave the rest unused"):
        assert len(ask(bytes=10**7)) == 600


def test_a_set_larger_than_its_originals_says_so(some):
    photographs = dataclasses.replace(some, provenance={"bytes_per_image": 5})
    with pytest.warns(UserWarning, match="more than the .* that the original files of these images take"):
        quantize(photographs, bytes=9_000, codec="webp", quality=80, method="random", setting=TINY)
