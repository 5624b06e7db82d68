"""Profiles: a YAML file of notebooks, parameter grids and needs -> a checked list of runs, each with its id.

A run's id is a digest of its notebook's code cells, its parameters, the kind of device, the code of the library that
the notebook reaches, and the ids of the runs it needs: what is unchanged keeps its id and is not run again, and prose
can be edited freely.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dqas_lib.core.checks import kinds, one_of
from dqas_lib.core.digests import canonical, digest
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.reproduce.places import find_profile
from dqas_lib.reproduce.source import Notebook, check_parameters, read_notebook

DEVICES = ("auto", "cpu", "cuda")
MOST_RUNS = 10_000
TEXT, NAMES, LISTS = "a text", "a mapping of names to values", "a mapping of names to lists of values"


class _Strict(BaseModel):
    """Keys of a mapping in YAML: no others, and values of the very kind; a description completes "must be ..."."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RunEntry(_Strict):
    """A run of a profile, or a grid of them, as it is written down."""

    notebook: str = Field(description="the name of a notebook")
    name: str = Field("", description=TEXT)
    cores: Annotated[int, Field(ge=1)] | Literal["all"] = Field(1, description="a whole number >= 1 or 'all'")
    minutes: float = Field(1, gt=0, allow_inf_nan=False, description="a number above 0")
    parameters: dict[str, Any] = Field({}, description=NAMES)
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field({}, description=LISTS)
    needs: list[str] = Field([], description="a list of names")


class ProfileFile(_Strict):
    """A profile as it is written down."""

    title: str = Field("", description=TEXT)
    about: str = Field("", description=TEXT)
    full: bool = Field(False, description="true or false")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="one of auto, cpu, cuda")
    per_gpu: int = Field(1, ge=1, description="a whole number >= 1")
    defaults: dict[str, Any] = Field({}, description=NAMES)
    runs: list[RunEntry] = Field(min_length=1, description="a list with at least one run")


@dataclass(frozen=True)
class Run:
    """One execution of a notebook."""

    name: str  # unique in the profile
    notebook: Notebook
    parameters: Mapping[str, Any]  # those that differ from the notebook's own
    cores: int  # slots it takes on a CPU and worker processes it may use; 0: all there are
    seconds: float  # it is expected to take, before any was measured
    needs: tuple[str, ...]  # names of runs that come first
    id: str


@dataclass(frozen=True)
class Profile:
    """A profile's runs, each after those it needs."""

    name: str
    title: str
    about: str
    full: bool  # the published settings, not reduced ones
    device: str  # "cpu" or "cuda"
    per_gpu: int  # runs at a time on one GPU
    runs: tuple[Run, ...]


class _Plain(yaml.SafeLoader):
    """Makes no objects, and takes no aliases: with them a few lines stand for billions of values, or for themselves."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("it uses aliases (*name): write it without them")
        return super().compose_node(parent, index)


def plain_yaml(text: str) -> Any:
    """The plain values of a YAML text; ValueError for anything else."""
    try:
        return yaml.load(text, _Plain)
    except Exception as error:  # besides YAMLError: ValueError (a 13th month), RecursionError (nested too deeply) ...
        raise ValueError(str(error) or type(error).__name__) from error


def read_profile(path: Path) -> ProfileFile:
    """A profile's file; DataError names the file, the run, the key and the value that is wrong."""
    try:
        given = plain_yaml(path.read_text(encoding="utf-8"))
        return ProfileFile.model_validate(given)
    except ValidationError as error:
        raise DataError(f"{path}: {_sentence(given, error.errors()[0]['loc'])}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable YAML: {' '.join(str(error).split())[:500]}") from error


def _sentence(given: Any, place: Sequence[int | str]) -> str:
    """What is wrong at a place of a profile."""
    entry, where = ProfileFile.model_fields, "the profile"
    if len(place) > 1 and place[0] == "runs":
        entry, where = RunEntry.model_fields, f"run {int(place[1]) + 1}"
        given, place = given["runs"][place[1]], place[2:]
    if not place:
        return f"{where} must be {NAMES}; got {given!r}"
    key = str(place[0])
    if key not in entry:
        return f"{where} has an unknown key {place[0]!r}: the known ones are {', '.join(entry)}"
    names = [name for name in (given.get("name"), given.get("notebook")) if name and isinstance(name, str)]
    value = "nothing" if given.get(key) is None else repr(given[key])
    return f"{key} of {(names or [where])[0]} must be {entry[key].description}; got {value}"


@kinds
def load_profile(name: str, *, settings: Mapping[str, Any] | None = None, device: str | None = None) -> Profile:
    """Read and check a whole profile before anything runs.

    Args:
        name: A name in notebooks/profiles or the path of a YAML file.
        settings: Parameters that override the profile's in every notebook that has them.
        device: Overrides the profile's device.

    Raises:
        InputError: For an unknown profile, notebook, parameter or device, or a parameter of the wrong kind.
        DataError: For a file that is no profile or no notebook, with a key or a value that cannot be used.
    """
    path = find_profile(name)
    given, settings = read_profile(path), settings or {}
    device = one_of("device", device or given.device, DEVICES)
    if device == "auto":
        from dqas_lib.core.devices import default_device  # imports PyTorch

        device = default_device()
    folder = path.parent.parent if path.parent.name == "profiles" else path.parent
    stems = dict.fromkeys(entry.notebook for entry in given.runs)
    notebooks = {stem: read_notebook(folder / f"{stem}.ipynb") for stem in stems}
    known = sorted({key for notebook in notebooks.values() for key in notebook.parameters})
    for key in [*settings, *given.defaults]:
        if key not in known:
            listed = ", ".join(known)
            raise InputError(f"no notebook of profile {path.stem} has a parameter {key}: the known ones are {listed}")
    runs: dict[str, Run] = {}
    groups: dict[str, list[Run]] = {}
    for entry in given.runs:
        notebook, base = notebooks[entry.notebook], entry.name or entry.notebook
        needs = _needs(path, base, entry.needs, {name: [run] for name, run in runs.items()} | groups)
        shared = {key: value for key, value in given.defaults.items() if key in notebook.parameters}
        if device == "cuda" and "DEVICE" in notebook.parameters:  # "auto" would train on the CPU in silence
            shared = {"DEVICE": device, **shared}
        override = {key: value for key, value in settings.items() if key in notebook.parameters}
        for suffix, point in _points(path, base, entry.grid):
            parameters = {**shared, **entry.parameters, **point, **override}
            check_parameters(notebook, parameters)
            ids = sorted(need.id for need in needs)
            run = Run(
                name=base + suffix,
                notebook=notebook,
                parameters=parameters,
                cores=0 if entry.cores == "all" else entry.cores,
                seconds=60 * entry.minutes,
                needs=tuple(need.name for need in needs),
                id=digest(notebook.path.stem, *notebook.code, canonical(parameters), device, notebook.library, *ids),
            )
            if run.name in runs:
                raise DataError(f"{path}: two runs are called {run.name!r}: give one of them a name")
            runs[run.name] = run
            groups.setdefault(base, []).append(run)
    return Profile(
        name=path.stem,
        title=given.title or path.stem,
        about=" ".join(given.about.split()),
        full=given.full and not settings,
        device=device,
        per_gpu=given.per_gpu,
        runs=tuple(runs.values()),
    )


def _points(path: Path, base: str, grid: Mapping[str, Sequence[Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of the grid's values, with what is added to the name."""
    if not re.fullmatch(r"[\w.+-]+", base):
        raise DataError(f"{path}: a run's name is made of letters, digits, '_', '.', '+' and '-'; got {base!r}")
    if math.prod(len(values) for values in grid.values()) > MOST_RUNS:
        raise DataError(f"{path}: grid of {base} asks for more than {MOST_RUNS:,} runs: give fewer values")
    points = []
    for values in itertools.product(*grid.values()):
        parts = [re.sub(r"[^\w.]+", "-", str(value)).strip("-") for value in values]
        points.append(("".join(f"-{part}" for part in parts), dict(zip(grid, values, strict=True))))
    return points


def _needs(path: Path, base: str, names: Sequence[str], known: Mapping[str, Sequence[Run]]) -> list[Run]:
    """The runs that these names stand for: a run's own name, or an entry's for all its runs."""
    for name in names:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise DataError(f"{path}: {base} needs {name!r}, which no earlier run is called: there are {listed}")
    return [run for name in names for run in known[name]]
