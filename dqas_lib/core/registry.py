"""Registries: name -> what is registered under it. Everything that can be added from outside stands in one."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from dqas_lib.core.checks import nearest
from dqas_lib.core.errors import InputError

Item = TypeVar("Item")


def unknown(kind: str, name: object, known: Mapping[str, object] | tuple[str, ...]) -> InputError:
    """The error for a name that is not known: what was given, the nearest known name, and all of them."""
    return InputError(f"unknown {kind} {name!r}{nearest(name, known)}: the known ones are {', '.join(known)}")


class Registry(Mapping[str, Item]):
    """A mapping, so `"dq" in METHODS`, `list(METHODS)` and `METHODS["dq"]` work; kind: what the items are called."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, Item] = {}

    def register(self, item: Item) -> Item:
        """Add an item under its own `name` and give it back, so that this can decorate a class.

        InputError when it has no name, or another one is registered under that name.
        """
        name = getattr(item, "name", None)
        if not isinstance(name, str) or not name:
            raise InputError(f"a {self.kind} needs a name, a text that is not empty; got {name!r}, of {item!r}")
        before = self._items.get(name)
        if before is not None and _place(before) != _place(item):
            raise InputError(f"a {self.kind} named {name!r} is registered already ({before!r}): give another name")
        self._items[name] = item
        return item

    def __getitem__(self, name: str) -> Item:
        if name not in self:
            raise unknown(self.kind, name, self)
        return self._items[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The item of that name, or the default."""
        return self._items.get(name, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _place(item: object) -> tuple[object, ...]:
    """Where an item is written: a cell that is run again registers the same thing anew."""
    cls = item if isinstance(item, type) else type(item)
    return cls.__module__, cls.__qualname__, () if isinstance(item, type) else getattr(item, "name", "")
