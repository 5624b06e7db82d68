"""A notebook as it is written: its code, its parameters, and the code of the library that it reaches."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqas_lib.core.digests import LIBRARY, canonical, code_digest, imports, reached
from dqas_lib.core.errors import DataError, InputError

MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


@dataclass(frozen=True)
class Notebook:
    """A notebook's file."""

    path: Path
    content: str
    code: tuple[str, ...]  # of its code cells
    parameters: Mapping[str, Any]  # of its parameters cell, with their defaults
    library: str  # digest of the library's code that its code cells reach


def read_notebook(path: Path) -> Notebook:
    """Read a notebook's file; DataError when it is no notebook or its parameters cell is unreadable."""
    try:
        content = path.read_text(encoding="utf-8")
        cells = json.loads(content)["cells"]
        code = tuple("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", ())]
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.ipynb"))) or "none"
        raise InputError(f"no notebook {path.stem!r} in {path.parent}: there are {known}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a Jupyter notebook: {error}") from error
    if len(tagged) > 1:
        raise DataError(f"{path} has {len(tagged)} cells tagged 'parameters': it may have one")
    try:
        parameters = _literals("".join(tagged))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: the parameters cell holds plain values, one a line: {error}") from error
    return Notebook(path, content, code, parameters, code_digest(library_files(code)))


def _literals(cell: str) -> dict[str, Any]:
    """Names and values of a parameters cell; papermill could tell them too, but takes two seconds to import."""
    values = {}
    for node in ast.parse(cell).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if len(targets) == 1 and isinstance(targets[0], ast.Name):
                values[targets[0].id] = ast.literal_eval(node.value)
    return values


def library_files(code: Sequence[str]) -> list[Path]:
    """Files of the library that code cells import, directly or not; all of them when a cell is not plain Python.

    The files of packages count: importing dqas_lib.methods runs the file of every method. Lines for IPython (%, !) are
    passed over, and so is this folder, which moves results about and computes none.
    """
    try:
        trees = [ast.parse(MAGIC.sub("", cell)) for cell in code]
        files = reached({file for tree in trees for file in imports(tree, packages=True)}, packages=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        files = sorted(LIBRARY.rglob("*.py"))
    return [file for file in files if Path(__file__).parent not in file.parents]


def check_parameters(notebook: Notebook, parameters: Mapping[str, Any]) -> None:
    """InputError for a parameter the notebook does not have, or a value of another kind than its default."""
    stem = notebook.path.stem
    for name, value in parameters.items():
        if name not in notebook.parameters:
            raise InputError(
                f"notebook {stem} has no parameter {name}: it has {', '.join(notebook.parameters) or 'none'}"
            )
        default = notebook.parameters[name]
        if default is not None and value is not None and _kind(default) != _kind(value):
            like = f"{_kind(default)}, like {default!r}"
            raise InputError(f"notebook {stem}: parameter {name} is {like}; got {value!r}, {_kind(value)}")
    try:
        canonical(dict(parameters))
    except InputError as error:
        raise InputError(f"parameters of {stem} must be plain values: {error}") from error


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", str: "a text", int | float: "a number", Sequence: "a list"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "a mapping")
