"""Writes of a compressed set, cut at every step: nothing, the old set or the new one, never a mixture."""

import numpy as np
import pytest
from cuts import cuts

from dqas_lib.compressed.read import open_compressed
from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import ImageSet


def image_set(value: int) -> ImageSet:
    """20 images that all show `value`, in a set of that name."""
    images = np.full((20, 8, 8, 3), value, dtype=np.uint8)
    return ImageSet(images, np.arange(20) % 2, np.arange(20) + value, ("a", "b"), f"set {value}")


def value_of(path) -> int | None:
    """Which set is there, or None; fails when it is a mixture."""
    try:
        opened = open_compressed(path)
    except DataError:
        assert not path.exists()  # a folder of this name is a whole set
        return None
    (value,) = np.unique(opened.images.images)
    assert opened.images.name == f"set {value}"
    assert opened.images.ids.tolist() == list(range(value, value + 20))
    assert opened.reproduced
    return int(value)


@pytest.mark.parametrize("power", [False, True])
def test_a_first_set_is_absent_or_whole(tmp_path, power):
    path = tmp_path / "here" / "set"
    seen = []
    for cut in cuts(path.parent, lambda: None, lambda: save_compressed(path, image_set(1)), power=power):
        found = value_of(path)
        assert found in (None, 1), cut
        seen.append(found)
        if found is None:
            save_compressed(path, image_set(2))  # tried once more, it succeeds, whatever the cut left behind
            assert value_of(path) == 2, cut
    assert len(seen) >= 10
    assert seen[0] is None


@pytest.mark.parametrize("power", [False, True])
def test_a_set_that_replaces_another_is_old_or_new(tmp_path, power):
    path = tmp_path / "here" / "set"
    seen = []
    for cut in cuts(
        path.parent,
        lambda: save_compressed(path, image_set(1)),
        lambda: save_compressed(path, image_set(2), overwrite=True),
        power=power,
    ):
        found = value_of(path)
        assert found in (1, 2), cut
        seen.append(found)
        save_compressed(path, image_set(3), overwrite=True)
        assert value_of(path) == 3, cut
    assert seen == sorted(seen)
    assert set(seen) == {1, 2}
