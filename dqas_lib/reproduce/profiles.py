"""Profiles: a YAML file of notebooks, parameter grids and needs -> a checked list of runs, each with its id.

A run's id is a digest of the notebook's code cells, the parameters, the library, the kind of device and the ids of the
runs it needs: what is unchanged keeps its id and is not run again, and prose can be edited freely.
"""

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dqas_lib.core.digests import canonical, digest, library_digest
from dqas_lib.core.errors import DataError, InputError

REPOSITORY = Path(__file__).resolve().parents[2]


PROFILE_KEYS = ("title", "about", "full", "device", "per_gpu", "defaults", "runs")


RUN_KEYS = ("notebook", "name", "cores", "minutes", "parameters", "grid", "needs")


MOST_VALUES = 100_000


MOST_RUNS = 10_000


DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Notebook:
    """A notebook's file, its content, and the parameters of its parameters cell with their defaults."""

    path: Path
    content: str
    code: tuple[str, ...]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """One execution of a notebook.

    name: unique in the profile; parameters: those that differ from the notebook's own; cores: slots it takes on a CPU
    and worker processes it may use (0: all there are); seconds: how long it is expected to take, before any was
    measured; needs: names of runs that come first; id: see above.
    """

    name: str
    notebook: Notebook
    parameters: Mapping[str, Any]
    cores: int
    seconds: float
    needs: tuple[str, ...]
    id: str


@dataclass(frozen=True)
class Profile:
    """A profile's runs in an order in which each comes after those it needs.

    full: the published settings, not reduced ones; device: "cpu" or "cuda"; per_gpu: runs at a time on one GPU.
    """

    name: str
    path: Path
    title: str
    about: str
    full: bool
    device: str
    per_gpu: int
    runs: tuple[Run, ...]


def profile_folder() -> Path:
    """notebooks/profiles of the checkout this library is in, or of the checkout the working folder is in."""
    here = Path.cwd().resolve()
    for folder in (REPOSITORY, here, *here.parents):
        if (folder / "notebooks" / "profiles").is_dir():
            return folder / "notebooks" / "profiles"
    raise InputError(f"no notebooks/profiles in {REPOSITORY} nor in {here} and above: start in the kit's checkout")


def find_profile(name: str) -> Path:
    """The file of a profile given by name or by path; InputError lists the known names."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name).resolve()
        if not path.is_file():
            raise InputError(f"no profile file {name}")
        return path
    folder = profile_folder()
    path = folder / f"{name}.yaml"
    if not re.fullmatch(r"[\w.-]+", name) or not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"unknown profile {name!r}: the known ones are {known} (or give the path of a .yaml file)")
    return path


def read_notebook(path: Path) -> Notebook:
    """A notebook's code and parameters; DataError when the file is no notebook or its parameters cell is unreadable."""
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
    return Notebook(path, content, code, _literals(path, tagged[0]) if tagged else {})


def _literals(path: Path, cell: str) -> dict[str, Any]:
    found = {}
    try:
        for node in ast.parse(cell).body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                found[node.targets[0].id] = ast.literal_eval(node.value)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                found[node.target.id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: the parameters cell holds plain values, one a line: {error}") from error
    return found


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, Sequence) else "a mapping"


def check_parameters(notebook: Notebook, parameters: Mapping[str, Any]) -> None:
    """InputError for a parameter the notebook does not have, or a value of another kind than its default."""
    for name, value in parameters.items():
        if name not in notebook.parameters:
            known = ", ".join(notebook.parameters) or "none"
            raise InputError(f"notebook {notebook.path.stem} has no parameter {name}: it has {known}")
        default = notebook.parameters[name]
        if default is not None and value is not None and _kind(default) != _kind(value):
            raise InputError(
                f"notebook {notebook.path.stem}: parameter {name} is {_kind(default)}, like {default!r}; "
                f"got {value!r}, {_kind(value)}"
            )


def run_id(notebook: Notebook, parameters: Mapping[str, Any], device: str, needs: Sequence[str]) -> str:
    """The id of a run; `needs` are ids."""
    return digest(
        notebook.path.stem,
        *notebook.code,
        canonical(dict(parameters)),
        device,
        library_digest(),
        *sorted(needs),
    )


def plain_yaml(text: str) -> Any:
    """The plain values of a YAML text, by safe load; ValueError for anything else.

    Aliases can make a few lines stand for billions of values, or for themselves: a text of more than MOST_VALUES
    values, aliases written out, is refused.
    """
    try:
        value = yaml.safe_load(text)
    except Exception as error:  # besides YAMLError: ValueError (a 13th month), RecursionError (nested too deeply) ...
        raise ValueError(str(error) or type(error).__name__) from error
    if _values(value, {}) > MOST_VALUES:
        raise ValueError(f"it stands for more than {MOST_VALUES:,} values, or for itself: write it without aliases")
    return value


def _values(value: Any, known: dict[int, float]) -> float:
    """Number of values in a value, each counted as often as it appears; infinite when it holds itself."""
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known) for part in inner)
    return known[id(value)]


def load_profile(name: str, *, settings: Mapping[str, Any] | None = None, device: str | None = None) -> Profile:
    """Read and check a whole profile before anything runs.

    settings: parameters that override the profile's in every notebook that has them; device: overrides its device.
    Raises InputError or DataError: unknown keys, notebooks, parameters or needs, values of the wrong kind.
    """
    path = find_profile(name)
    try:
        given = plain_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable YAML: {' '.join(str(error).split())[:500]}") from error
    given = _mapping(path, "the profile", given, PROFILE_KEYS)
    if not isinstance(given.get("runs"), list) or not given["runs"]:
        raise DataError(f"{path}: 'runs' is a list with at least one run")
    device = resolve_device(device or given.get("device", "auto"))
    settings = dict(settings or {})
    defaults = _mapping(path, "defaults", given.get("defaults") or {}, None)
    folder = path.parent.parent if path.parent.name == "profiles" else path.parent
    runs: list[Run] = []
    groups: dict[str, list[Run]] = {}
    used: set[str] = set()
    notebooks: dict[str, Notebook] = {}
    for number, entry in enumerate(given["runs"], start=1):
        entry = _mapping(path, f"run {number}", entry, RUN_KEYS)
        stem = entry.get("notebook")
        if not isinstance(stem, str):
            raise DataError(f"{path}: run {number} names no notebook")
        notebook = notebooks.setdefault(stem, read_notebook(folder / f"{stem}.ipynb"))
        base = entry.get("name", stem)
        if not isinstance(base, str) or not re.fullmatch(r"[\w.+-]+", base):
            raise DataError(f"{path}: a run's name is made of letters, digits, '_', '.', '+' and '-'; got {base!r}")
        needs = _needs(path, base, entry.get("needs") or [], groups)
        shared = {key: value for key, value in defaults.items() if key in notebook.parameters}
        used |= set(shared)
        own = _mapping(path, f"parameters of {base}", entry.get("parameters") or {}, None)
        override = {key: value for key, value in settings.items() if key in notebook.parameters}
        group = []
        for suffix, point in _grid(path, base, entry.get("grid") or {}):
            parameters = {**shared, **own, **point, **override}
            check_parameters(notebook, parameters)
            _check_plain(path, base, parameters)
            group.append(
                Run(
                    name=base + suffix,
                    notebook=notebook,
                    parameters=parameters,
                    cores=_cores(path, base, entry.get("cores", 1)),
                    seconds=60 * _positive(path, base, "minutes", entry.get("minutes", 1)),
                    needs=tuple(need.name for need in needs),
                    id=run_id(notebook, parameters, device, [need.id for need in needs]),
                )
            )
        groups.setdefault(base, []).extend(group)
        runs += group
    _check_names(path, runs)
    known = sorted(set().union(*(notebook.parameters for notebook in notebooks.values())))
    for key in [*settings, *defaults]:
        if key not in known:
            raise InputError(
                f"no notebook of profile {path.stem} has a parameter {key}: the known ones are {', '.join(known)}"
            )
    return Profile(
        name=path.stem,
        path=path,
        title=str(given.get("title", path.stem)),
        about=" ".join(str(given.get("about", "")).split()),
        full=bool(given.get("full", False)) and not settings,
        device=device,
        per_gpu=int(_positive(path, "the profile", "per_gpu", given.get("per_gpu", 1))),
        runs=tuple(runs),
    )


def resolve_device(device: str) -> str:
    """ "auto" becomes what this machine has; InputError for an unknown kind or an absent GPU."""
    if device not in DEVICES:
        raise InputError(f"device must be one of {', '.join(DEVICES)}; got {device!r}")
    if device == "auto":
        from dqas_lib.core.devices import default_device

        return default_device()
    return device


def _mapping(path: Path, what: str, value: Any, keys: Sequence[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise DataError(f"{path}: {what} must be a mapping of names to values; got {value!r}")
    unknown = [key for key in value if keys is not None and key not in keys]
    if unknown:
        raise DataError(f"{path}: {what} has an unknown key {unknown[0]!r}: the known ones are {', '.join(keys)}")
    return value


def _positive(path: Path, what: str, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise DataError(f"{path}: {key} of {what} must be a number above 0; got {value!r}")
    return value


def _cores(path: Path, base: str, value: Any) -> int:
    if value == "all":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{path}: cores of {base} must be a whole number >= 1 or 'all'; got {value!r}")
    return value


def _check_plain(path: Path, base: str, parameters: Mapping[str, Any]) -> None:
    try:
        canonical(dict(parameters))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: parameters of {base} must be plain values: {error}") from error


def _grid(path: Path, base: str, grid: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of the grid's values, with what is added to the name."""
    grid = _mapping(path, f"grid of {base}", grid, None)
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise DataError(f"{path}: grid of {base}: {key} needs a list of values; got {values!r}")
    if math.prod(len(values) for values in grid.values()) > MOST_RUNS:
        raise DataError(f"{path}: grid of {base} asks for more than {MOST_RUNS:,} runs: give fewer values")
    points = []
    for values in itertools.product(*grid.values()):
        parts = [re.sub(r"[^\w.]+", "-", str(value)).strip("-") for value in values]
        points.append(("".join(f"-{part}" for part in parts), dict(zip(grid, values, strict=True))))
    return points


def _needs(path: Path, base: str, names: Any, groups: Mapping[str, Sequence[Run]]) -> list[Run]:
    if not isinstance(names, list):
        raise DataError(f"{path}: needs of {base} must be a list of names; got {names!r}")
    known = {run.name: [run] for group in groups.values() for run in group} | dict(groups)
    for name in names:
        if not isinstance(name, str) or name not in known:
            listed = ", ".join(known) or "none"
            raise DataError(f"{path}: {base} needs {name!r}, which no earlier run is called: there are {listed}")
    return [run for name in names for run in known[name]]


def _check_names(path: Path, runs: Sequence[Run]) -> None:
    names = [run.name for run in runs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"{path}: two runs are called {min(twice)!r}: give one of them a name")
