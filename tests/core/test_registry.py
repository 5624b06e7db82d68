"""The registry: names found, names refused."""

import pytest

from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry


@pytest.fixture
def fruits() -> Registry:
    registry = Registry("fruit")

    @registry.register
    class Apple:
        name = "apple"

    registry.register(type("Pear", (), {"name": "pear"}))
    return registry


def test_it_is_a_mapping(fruits):
    assert list(fruits) == ["apple", "pear"]
    assert len(fruits) == 2
    assert "pear" in fruits
    assert "plum" not in fruits
    assert None not in fruits
    assert fruits["apple"].name == fruits.get("apple").name == "apple"
    assert fruits.get("plum", 7) == 7


@pytest.mark.parametrize("name", ["aple", "APPLE", "", None, 3, ["apple"]])
def test_an_unknown_name_is_told_the_nearest_and_all(fruits, name):
    with pytest.raises(InputError, match=r"unknown fruit .*the known ones are apple, pear") as caught:
        fruits[name]
    assert repr(name) in str(caught.value)
    assert ("did you mean 'apple'?" in str(caught.value)) == (name in ("aple", "APPLE", ["apple"]))


def test_a_name_is_taken_once(fruits):
    with pytest.raises(InputError, match=r"a fruit named 'apple' is registered already .*: give another name"):
        fruits.register(type("Golden", (), {"name": "apple"}))
    again = type("Pear", (), {"name": "pear"})  # a cell that is run again
    assert fruits.register(again) is again
    assert fruits["pear"] is again
    with pytest.raises(InputError, match="a fruit named 'apple'"):
        fruits.register(type("Pear", (), {"name": "apple"})())


@pytest.mark.parametrize("item", [object(), type("Nameless", (), {"name": ""}), type("Odd", (), {"name": 3})])
def test_what_has_no_name_is_refused(fruits, item):
    with pytest.raises(InputError, match="a fruit needs a name, a text that is not empty; got"):
        fruits.register(item)
    assert len(fruits) == 2
