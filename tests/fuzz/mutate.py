"""Mutations of bytes and of plain values, drawn by a seed: the same seed always makes the same input."""

import json
import random
from collections.abc import Callable
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**12)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**12, 10**30, -(2**63), 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "../../etc/passwd", "/etc/passwd", "a" * 5000, "\0", "\ud800", "__import__('os').system('true')", "nan"),
    *([], {}, [[]], [None], {"a": 1}, [1, "a"], {"": None}, [0] * 1000),
)


def flip(draw: random.Random, data: bytearray) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def overwrite(draw: random.Random, data: bytearray) -> None:
    at, length = draw.randrange(len(data)), draw.choice((1, 2, 4, 8, 100))
    data[at : at + length] = draw.choice((b"\0", b"\xff", draw.randbytes(1))) * min(length, len(data) - at)


def number(draw: random.Random, data: bytearray) -> None:
    width, at = draw.choice((1, 2, 4, 8)), draw.randrange(len(data))
    value = draw.choice(NUMBERS) % 256**width
    data[at : at + width] = value.to_bytes(width, draw.choice(("big", "little")))


def truncate(draw: random.Random, data: bytearray) -> None:
    del data[draw.choice((draw.randrange(len(data)), len(data) - 1, min(len(data) - 1, 20))) :]


def remove(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    del data[at : at + draw.choice((1, 4, 64, len(data)))]


def repeat(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    piece = data[at : at + draw.choice((1, 8, 200))]
    data[at:at] = piece * draw.choice((1, 2, 100))


def insert(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    data[at:at] = draw.randbytes(draw.choice((1, 3, 50)))


def shuffle(draw: random.Random, data: bytearray) -> None:
    first, second = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
    data[:] = data[:first] + data[second:] + data[first:second]


MUTATIONS = (flip, flip, overwrite, number, number, truncate, remove, repeat, insert, shuffle)


def mutated(content: bytes, seed: int) -> bytes:
    """The content after one to three mutations, most of them near its beginning, where headers are."""
    draw = random.Random(seed)
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        mutation = draw.choice(MUTATIONS)
        if draw.random() < 0.5 and len(data) > 200:
            head = data[:200]
            mutation(draw, head)
            data[:200] = head
        else:
            mutation(draw, data)
    return bytes(data)


def mutated_value(value: Any, seed: int) -> Any:
    """A plain value (as of JSON or YAML) with one to three of its parts replaced, removed, repeated or renamed."""
    draw = random.Random(seed)
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _collect(value, places.append)
        if not places:
            return draw.choice(VALUES)
        where, key = draw.choice(places)
        what = draw.random()
        if what < 0.7:
            where[key] = draw.choice(VALUES)
        elif what < 0.85:
            del where[key]
        elif isinstance(where, dict):
            where[draw.choice(("x", "", str(key).upper(), "__class__"))] = where[key]
        else:
            where.append(where[key])
    return value


def _collect(value: Any, add: Callable[[tuple[Any, Any]], None]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        add((value, key))
        _collect(inner, add)
