import numpy as np
import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.core.seeds import check_seed, derive, generator, torch_generator


def test_equal_uses_draw_equal_numbers_and_other_uses_others():
    assert derive(0, "bins", 3) == derive(0, "bins", 3)
    numbers = {derive(seed, use, part) for seed in (0, 1) for use in ("bins", "rounds") for part in (0, 1)}
    assert len(numbers) == 8
    assert np.array_equal(generator(5, "a").random(4), generator(5, "a").random(4))
    assert torch_generator(5, "a").initial_seed() == derive(5, "a")


def test_parts_do_not_run_into_each_other():
    assert derive(1, "2", 3) != derive(12, 3)
    assert derive(0, "a", "b") != derive(0, "ab")


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_a_seed_that_is_no_whole_number_is_refused_with_its_value(seed):
    with pytest.raises(InputError, match="whole number >= 0; got"):
        check_seed(seed)
