"""The house: imports run one way, no file is too long, and the whole stays thin."""

import ast
import statistics

import pytest
from places import REPOSITORY

LIBRARY = REPOSITORY / "dqas_lib"
# from the ground up; rooms on one line stand beside each other and import nothing of each other
FLOORS = (
    {"core"},
    {"data"},
    {"training"},
    {"patches", "bins", "budget", "active"},
    {"pool"},
    {"methods"},
    {"compressed"},
    {"quantize"},
    {"update"},
    {"experiments", "compress"},
    {"explorers", "__main__"},
)
CORE_ONLY = {"notebook", "reproduce"}
COMMANDS = {"reproduce", "__main__"}  # they end the library's own answer to Ctrl-C while it is imported
MOST_LINES = 15_078
FILES = sorted(LIBRARY.rglob("*.py"))


def room(parts):
    """The room a module of the library is in: the first name after dqas_lib."""
    return parts[0].removesuffix(".py")


def below(name):
    """The rooms that a room may import from, itself included."""
    own = {name, "_imported"} if name in COMMANDS else {name}
    if name in CORE_ONLY:
        return own | {"core"}
    height = next(height for height, rooms in enumerate(FLOORS) if name in rooms)
    allowed = own.union(*FLOORS[:height])
    return allowed | {"notebook"} if name == "explorers" else allowed


def imported_rooms(path):
    """(line, room) of every import from the library in a file, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno} imports relatively"
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "dqas_lib" else [f"dqas_lib.{a.name}" for a in node.names]
        for name in names:
            head, *rest = name.split(".")
            if head == "dqas_lib":
                yield node.lineno, rest[0] if rest else "__init__"


def test_every_room_stands_on_a_floor():
    rooms = {room(path.relative_to(LIBRARY).parts) for path in FILES} - {"__init__"}
    assert rooms == set().union(*FLOORS, CORE_ONLY)


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(LIBRARY).as_posix() for path in FILES])
def test_imports_run_one_way(path):
    own = room(path.relative_to(LIBRARY).parts)
    if own == "__init__":
        return  # the map of the library names every room
    up = [f"line {line}: {name}" for line, name in imported_rooms(path) if name not in below(own)]
    assert not up, f"{own} may import from {sorted(below(own))} only"


def test_the_library_stays_thin():
    lines = {path.relative_to(LIBRARY).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert sum(lines.values()) <= MOST_LINES
    assert {name: n for name, n in lines.items() if n > 400} == {}
    assert statistics.median(lines.values()) < 160
