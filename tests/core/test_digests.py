"""The digest of code: what a stage imports decides, and only what computes numbers."""

from pathlib import Path

import pytest

from dqas_lib.core.digests import LIBRARY, code_digest, digest_of, is_ours, reached
from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.methods import METHODS, Herding

TREE = {
    "__init__.py": "from dqas_lib.methods import Apple\n",
    "core/__init__.py": "",
    "core/seeds.py": "from dqas_lib.core.errors import InputError\n\ndef derive(seed):\n    return seed + 1\n",
    "core/errors.py": "class InputError(Exception):\n    pass\n",
    "bins.py": "from dqas_lib.core.seeds import derive\n\ndef cut(n):\n    return derive(n) * 2\n",
    "methods/__init__.py": "from dqas_lib.methods.apple import Apple\nfrom dqas_lib.methods.pear import Pear as Kaki\n",
    "methods/apple.py": "from dqas_lib.bins import cut\n\nclass Apple:\n    def select(self):\n        return cut(3)\n",
    "methods/pear.py": "class Pear:\n    def select(self):\n        return 7\n",
    "compare.py": "def compare():\n    from dqas_lib.methods import Kaki\n    return Kaki().select()\n",
}


@pytest.fixture
def tree(tmp_path):
    """Makes a small library, each time in a new folder, with some files written differently."""
    made = []

    def make(**changes: str) -> Path:
        library = tmp_path / str(len(made)) / "dqas_lib"
        made.append(library)
        for name, text in {**TREE, **{name.replace("__", "/") + ".py": text for name, text in changes.items()}}.items():
            (library / name).parent.mkdir(parents=True, exist_ok=True)
            (library / name).write_text(text)
        return library

    return make


def names(files: list[str], library: Path) -> list[str]:
    return [path.relative_to(library).as_posix() for path in reached([library / file for file in files], library)]


def apple(library: Path) -> str:
    return digest_of("dqas_lib.methods.apple", library=library)


def test_the_closure_is_what_is_imported_and_packages_are_looked_through(tree):
    library = tree()
    assert names(["methods/apple.py"], library) == [
        "bins.py",
        "core/errors.py",
        "core/seeds.py",
        "methods/apple.py",
    ]
    assert names(["methods/pear.py"], library) == ["methods/pear.py"]
    # handed on by the package under another name, and imported inside a function
    assert names(["compare.py"], library) == ["compare.py", "methods/pear.py"]
    # a package that is asked for itself is all that it imports
    assert {"methods/apple.py", "methods/pear.py", "bins.py"} <= set(names(["methods/__init__.py"], library))


def test_another_methods_file_leaves_a_digest_as_it_was(tree):
    before = apple(tree())
    assert apple(tree(methods__pear="class Pear:\n    def select(self):\n        return 8\n")) == before
    assert apple(tree(methods__plum="class Plum:\n    pass\n")) == before
    more = TREE["methods/__init__.py"] + "from dqas_lib.methods.plum import Plum\n"
    assert apple(tree(methods____init__=more, methods__plum="class Plum:\n    pass\n")) == before


def test_what_it_calls_does_not_however_far_away(tree):
    before = apple(tree())
    assert apple(tree(bins=TREE["bins.py"].replace("* 2", "* 3"))) != before
    assert apple(tree(core__seeds=TREE["core/seeds.py"].replace("+ 1", "+ 2"))) != before
    assert apple(tree(methods__apple=TREE["methods/apple.py"].replace("3", "4"))) != before


def test_comments_docstrings_and_error_texts_do_not_count(tree):
    raising = "def cut(n):\n    if n < 0:\n        raise ValueError(f'{n} is small')\n    return n * 2\n"
    before = apple(tree(bins=raising))
    told = '"""Bins."""\n# why\n' + raising.replace("(n):\n", '(n):\n    """What."""\n').replace(
        "is small", "is too small"
    )
    assert apple(tree(bins=told)) == before
    assert apple(tree(bins=raising.replace("ValueError", "KeyError"))) != before
    assert apple(tree(bins=raising.replace("n < 0", "n < 1"))) != before
    assert apple(tree(core__errors="class InputError(ValueError):\n    code = 1\n")) == apple(tree())  # moves no number


def test_a_check_whose_value_nobody_uses_does_not_count(tree):
    plain = "def cut(n):\n    return n * 2\n"
    checked = f"from dqas_lib.core.checks import kinds, number\n\n@kinds\n{plain}".replace(
        "    return", "    number('n', n, 0)\n    return"
    )
    before = apple(tree(bins=plain))
    assert apple(tree(bins=checked)) == before
    assert apple(tree(bins=checked.replace("    number(", "    n = number("))) != before  # it may give another value
    assert apple(tree(bins=checked.replace("core.checks", "core.seeds"))) != before  # not a check
    assert apple(tree(bins=checked.replace("* 2", "* 3"))) != before


def test_the_whole_library_sees_every_file_that_computes(tree):
    before = digest_of(library=tree())
    assert digest_of(library=tree()) == before
    assert digest_of(library=tree(methods__pear="class Pear:\n    pass\n")) != before
    assert code_digest([], tree()) != before


def test_only_code_of_the_library_has_a_digest(tree):
    with pytest.raises(InputError, match=r"'numpy' is no code of dqas_lib: results of it are not kept"):
        digest_of("numpy", library=tree())
    with pytest.raises(InputError, match="Mine"):
        digest_of(type("Mine", (), {"__module__": "mine"}))
    assert is_ours(Store)
    assert is_ours(Herding)
    assert not is_ours(Path)


def test_a_method_of_the_real_library_reaches_no_other_method():
    files = {path.relative_to(LIBRARY.parent) for path in reached([LIBRARY / "methods" / "geometry.py"])}
    written = {Path(*METHODS[name].__module__.split(".")).with_suffix(".py") for name in METHODS}
    assert len(written) > 10
    assert files & written == {Path("dqas_lib/methods/geometry.py")}
    assert digest_of(Herding) == digest_of("dqas_lib.methods.geometry") != digest_of(Store)
