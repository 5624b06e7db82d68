"""Which lever pays, for other numbers than the notebook's."""

import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.experiments.advice import advise

OWN = {"n_images": 50_000, "bytes_per_image": 1_700, "bytes_there": 10**9, "trainings": 5}
OWN |= {"training_minutes": 20, "selection_minutes": 30}


@pytest.mark.parametrize(
    ("changes", "lever"),
    [
        ({}, "select"),  # 5 x 18 minutes saved for 30
        ({"trainings": 1}, "nothing"),  # 18 minutes saved for 30
        ({"fixed_steps": True}, "nothing"),
        ({"bytes_there": 10**7}, "re-encode and select"),
        ({"bytes_there": 10**7, "fixed_steps": True}, "re-encode"),
        ({"bytes_there": 85_000_000}, "select"),  # exactly enough room
    ],
)
def test_the_lever_follows_the_numbers(changes, lever):
    assert advise(**OWN | changes).lever == lever


def test_the_reasons_quote_the_numbers():
    size, time, _ = advise(**OWN).reasons
    assert size == "The images take 85.0 MB, and there is room for 1.0 GB: bytes are no reason to leave anything out."
    assert "saves 18 minutes per training and costs 30 once: it pays from training 2 on; you plan 5." in time
    assert "it pays never" in advise(**OWN | {"training_minutes": 0}).reasons[1]
    assert "saves no time" in advise(**OWN | {"fixed_steps": True}).reasons[1]
    assert "select before you label" in advise(**OWN | {"labeled": False}).reasons[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"ratio": 1.5}, "ratio"), ({"trainings": 0.5}, "trainings"), ({"bytes_there": -1}, "bytes_there")],
)
def test_bad_input(changes, message):
    with pytest.raises(InputError, match=message):
        advise(**OWN | changes)
