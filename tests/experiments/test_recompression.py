"""All images as JPEG or WebP at given bytes."""

import io

import numpy as np
import pytest
from PIL import Image

from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.experiments.recompression import jpeg_tables, recompress, whole_jpeg


@pytest.fixture(scope="module")
def photographs(cifar10) -> ImageSet:
    return cifar10.train.take(np.arange(0, 5000, 100))


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_more_bytes_give_better_images(photographs, codec):
    found = [recompress(photographs, 50 * each, codec=codec) for each in (250, 900)]
    for result, each in zip(found, (250, 900), strict=True):
        assert 0.75 * 50 * each < result.n_bytes <= 50 * each
        assert np.array_equal(result.images.ids, photographs.ids)
        assert np.array_equal(result.images.labels, photographs.labels)
        error = np.square(result.images.images.astype(float) - photographs.images).mean(axis=(1, 2, 3))
        assert result.psnr == pytest.approx((10 * np.log10(255**2 / error)).mean(), abs=1e-3)
    assert [result.psnr for result in found] == sorted(result.psnr for result in found)
    assert found[0].psnr > 15
    assert found[1].psnr > 26


def test_a_jpeg_without_its_tables_comes_back_as_the_whole_file_would(photographs):
    tables, picture = jpeg_tables(32, 60, False), Image.fromarray(photographs.images[0])
    whole, without = io.BytesIO(), io.BytesIO()
    picture.save(whole, "JPEG", quality=60)
    picture.save(without, "JPEG", quality=60, streamtype=2)
    assert np.array_equal(np.asarray(whole_jpeg(tables, without.getvalue())), np.asarray(Image.open(whole)))
    # the tables are in one of the two, and each has a start and an end marker of two bytes
    assert len(without.getvalue()) + len(tables) == len(whole.getvalue()) + 4


def test_gray_images_are_encoded_as_gray(digits):
    found = recompress(digits.train.take(np.arange(100)), 100 * 90)
    pixels = found.images.images
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert found.psnr > 20


def test_bad_input(photographs):
    with pytest.raises(InputError, match="codec is one of jpeg, webp; got 'png'"):
        recompress(photographs, 1000, codec="png")
    with pytest.raises(InputError, match="1,000 bytes are too few: 50 images as jpeg take at least"):
        recompress(photographs, 1000)
    with pytest.raises(InputError, match="there are no images to encode"):
        recompress(photographs.take(np.zeros(0, dtype=np.int64)), 1000)
