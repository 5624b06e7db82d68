"""What a notebook leaves behind when it is executed in a papermill run: tables, ids, figures, and the result."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dqas_lib.core.checks import kinds
from dqas_lib.core.errors import InputError
from dqas_lib.core.files import npy_bytes, write_atomically
from dqas_lib.core.store import versions


def run_folder() -> Path | None:
    """The folder of the papermill run this notebook is executed in, or None."""
    folder = os.environ.get("DQAS_RUN_DIR")
    return Path(folder) if folder else None


def save(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Give the rows back, to be shown; in a run, also write them to tables/<name>.csv of the run."""
    if (folder := run_folder()) is not None:
        write_atomically(folder / "tables" / f"{name}.csv", rows.to_csv(index=False, lineterminator="\n").encode())
    return rows


@kinds
def save_ids(ids: Mapping[str, np.ndarray]) -> None:
    """In a run, write the ids of selections to ids/<name>.npy of the run, (B,) int64 or str in the order selected."""
    if (folder := run_folder()) is not None:
        for name, values in ids.items():
            write_atomically(folder / "ids" / f"{name}.npy", npy_bytes(values))


@kinds
def finish(values: Mapping[str, Any]) -> None:
    """Write result.json, which says that the notebook got to its end: its last call; nothing outside a run.

    values: what the notebook found, as plain JSON values; InputError for others, NaN among them.
    """
    if (folder := run_folder()) is None:
        return
    result = {"finished": True, "values": dict(values), "versions": versions()}
    try:
        content = json.dumps(result, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"finish() takes plain JSON values: {error}") from error
    write_atomically(folder / "result.json", content)
