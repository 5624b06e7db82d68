"""The kernel of a run: ipykernel's own, but tqdm bars are told to the run's folder instead of the notebook.

Started as `python -P kernel.py -f CONNECTION`. An executed notebook shows no bars; whoever waits for it sees how far
the outermost one is, also those that the notebook switched off, and when it will be at its end.
"""

import contextlib
import io
import math
import os
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

from tqdm import std

FILE = Path(os.environ["DQAS_RUN_DIR"]) / "bar"


class Told(std.tqdm):
    """A bar that writes "what 3/20", and in a second line the time of its end (Unix), into FILE twice a second."""

    def __init__(self, *args: Any, disable: bool = False, **options: Any) -> None:
        super().__init__(
            *args, **{**options, "disable": False, "file": io.StringIO(), "mininterval": 0.5, "leave": False}
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Replace the file, when this is the outermost bar; nothing is shown here."""
        if not self.pos and msg is None:
            text, done = f"{self.desc.rstrip(': ')} {self.n:,}".strip(), self.n - self.initial
            if self.total:
                text += f"/{self.total:,}"
                each = self.format_dict["elapsed"] / done if done else math.nan
                text += f"\n{time.time() + (self.total - self.n) * each:.0f}"
            with contextlib.suppress(OSError):  # a full disk: the run will tell
                FILE.write_text(text, encoding="utf-8")
        return False


if __name__ == "__main__":
    Told.set_lock(threading.RLock())
    bars = types.ModuleType("tqdm.auto")
    bars.tqdm = Told  # type: ignore[attr-defined]
    sys.modules["tqdm.auto"] = bars
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
