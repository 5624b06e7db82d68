"""A notebook executed in this process: an IPython shell of its own, one store for all, no kernel to start.

A kernel costs seconds for the imports alone; eleven of them would cost more than what the notebooks compute.
"""

import atexit
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from places import REPOSITORY
from traitlets.config import Config

from dqas_lib.methods import METHODS

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@dataclass(frozen=True)
class Run:
    """What an executed notebook left: its folder, the names it defined, the outputs it displayed."""

    folder: Path
    names: dict[str, Any]
    outputs: list[dict]

    @property
    def values(self) -> dict[str, Any]:
        """What it gave to `finish`."""
        result = json.loads((self.folder / "result.json").read_text())
        assert result["finished"] is True
        return result["values"]

    def table(self, name: str) -> pd.DataFrame:
        """A table it saved."""
        return pd.read_csv(self.folder / "tables" / f"{name}.csv", dtype={"class": str})

    @property
    def alts(self) -> list[str]:
        """Alternative texts of all pictures shown."""
        pictures = Pictures()
        for output in self.outputs:
            pictures.feed(output.get("text/html", ""))
        return pictures.alts


class Pictures(HTMLParser):
    """Collects the alternative texts of <img>."""

    def __init__(self) -> None:
        super().__init__()
        self.alts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        if tag == "img":
            self.alts.append(dict(attrs).get("alt") or "")


def cells(path: Path, kind: str) -> list:
    """Its cells of a kind."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def is_parameters(cell: Any) -> bool:
    """Whether papermill would put parameters after this cell."""
    return "parameters" in cell.metadata.get("tags", [])


def parameters(path: Path) -> str:
    """The source of its parameters cell."""
    (cell,) = filter(is_parameters, cells(path, "code"))
    return cell.source


def solutions(path: Path) -> list[str]:
    """The ```python blocks inside <details>, in order."""
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    folded = "\n".join(re.findall(r"<details>.*?</details>", text, re.DOTALL))
    return re.findall(r"```python\n(.*?)```", folded, re.DOTALL)


def execute(path: Path, folder: Path, given: dict[str, Any]) -> Run:
    """Run all code cells and then the solutions, with some parameters given; the first error fails."""
    unknown = set(given) - {line.split(" = ")[0] for line in parameters(path).splitlines()}
    assert not unknown, f"{path.stem} has no parameters {unknown}"
    sources = []
    for cell in cells(path, "code"):
        sources.append(cell.source)
        if is_parameters(cell):
            sources.append("\n".join(f"{name} = {value!r}" for name, value in given.items()))
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    atexit.unregister(shell.atexit_operations)  # it would empty the names, at the end of all tests
    outputs: list[dict] = []
    registered = dict(METHODS._items)  # notebook 14 registers a method of its own
    try:
        for source in [*sources, *solutions(path)]:
            with capture_output() as captured:
                result = shell.run_cell(source)
            assert result.success, f"{path.stem}: {result.error_in_exec or result.error_before_exec!r}\n{source}"
            outputs += [output.data for output in captured.outputs]
        return Run(folder, dict(shell.user_ns), outputs)
    finally:
        InteractiveShell.clear_instance()
        METHODS._items = registered
