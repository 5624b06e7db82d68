"""Misuses of the public interface: each is refused in one sentence that names what was given."""

import os

import numpy as np
from misuse import examine, table

from dqas_lib.data.image_set import DataSet


def test_misuses(digits, tmp_path, monkeypatch, capsys):
    """At least 1,500: no error from the inside, nothing taken that means nothing, no message that does not say what."""
    monkeypatch.setenv("DQAS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    (tmp_path / "empty").mkdir()
    small = DataSet("small", digits.train.take(np.arange(60)), digits.test.take(np.arange(40)))
    total, inner, taken, unnamed = examine(table(small, tmp_path / "empty"))
    with capsys.disabled():
        print(f"{total:,} misuses: {len(inner)} errors from inside, {len(taken)} taken, {len(unnamed)} unnamed")
    assert total >= 1_500
    assert (inner, taken, unnamed) == ([], [], []), os.linesep.join([*inner, *taken, *unnamed])
