"""Digests: of settings, and of the code that computed a result.

A cached result depends on what computed it. Its code is the import closure of the modules that do the computing: they,
and whatever in the library they import, directly or not. Comments, docstrings and the texts of errors do not count, nor
does what only moves bytes, nor a call of `core.checks` whose value nobody uses: it stops a run or changes nothing.
Packages are looked through: `from dqas_lib.methods import DQ` reaches the file of DQ, not the files of all methods.
"""

import ast
import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dqas_lib.core.errors import InputError

LIBRARY = Path(__file__).parents[1]
NAME = "dqas_lib"
# they check, keep and name results; none of their lines changes the numbers in one
NEUTRAL = {f"core/{name}.py" for name in ("checks", "digests", "errors", "files", "registry", "store")}


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal settings give equal text.

    InputError for what JSON has no word for: NaN, a NumPy number, a key that is no string.
    """
    _check_keys(value)
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"settings must be plain JSON values ({error}: {str(value)[:80]}): give int, float, str, bool or None"
        ) from error


def _check_keys(value: Any) -> None:
    # json.dumps would turn {1: x} and {"1": x} into the same text
    for key in value if isinstance(value, Mapping) else ():
        if not isinstance(key, str):
            raise InputError(f"settings must have strings as keys; got {key!r}")
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        _check_keys(inner)


def digest(*parts: bytes | str) -> str:
    """First 20 hex digits of the SHA-256 of the parts, each preceded by its length."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(f"{len(data)}:".encode())
        sha.update(data)
    return sha.hexdigest()[:20]


class _Computing(ast.NodeTransformer):
    """Takes docstrings and bare checks away, and from `raise Error(...)` what the error says."""

    def __init__(self) -> None:
        self.checks: set[str] = set()  # names that the module imports from core.checks

    def visit(self, node: Any) -> Any:
        match node:
            case ast.ImportFrom(module="dqas_lib.core.checks"):
                self.checks |= {alias.asname or alias.name for alias in node.names}
                return None
            case ast.Expr(value=ast.Call(func=ast.Name(id=name))) if name in self.checks:
                return None
        self.generic_visit(node)
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())), *code]:
                node.body = code
        match getattr(node, "decorator_list", None):
            case [ast.Name(id=name), *others] if name in self.checks:
                node.decorator_list = others
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node


@functools.cache
def _module_code(path: Path) -> str:
    return ast.dump(_Computing().visit(ast.parse(path.read_text(encoding="utf-8"))))


def _file(module: str, library: Path) -> Path | None:
    """The file of a module of the library; None for anything else."""
    head, *rest = module.split(".")
    path = library.joinpath(*rest)
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if head == NAME and file.is_file()), None)


def imports(tree: ast.AST, library: Path = LIBRARY, *, packages: bool = False) -> set[Path]:
    """Files of the library that some code imports, at its top or inside a function.

    packages: also what runs on the way: the __init__ files of the packages that it names.
    """
    files: set[Path | None] = set()
    for module, name in _names(tree):
        files.add(_origin(module, name, library))
        parts = [*module.split("."), *([name] if name else [])]
        # the library's own __init__ counts only where the library itself is imported
        for length in range(min(2, len(parts)), len(parts) + 1) if packages else ():
            above = _file(".".join(parts[:length]), library)
            files.add(above if above and above.name == "__init__.py" else None)
    return {file for file in files if file}


def _names(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What code imports, as pairs: (module, name) of `from module import name`, (module, "") of `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def _origin(module: str, name: str, library: Path) -> Path | None:
    """The file that an import reaches, through the package that hands the name on."""
    submodule, file = _file(f"{module}.{name}", library) if name else None, _file(module, library)
    if submodule is not None and submodule.name != "__init__.py":
        return submodule
    if name and file is not None and file.name == "__init__.py":
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _origin(node.module, alias.name, library)
    return file


@functools.cache
def _imported(file: Path, library: Path, packages: bool) -> set[Path]:
    return imports(ast.parse(file.read_text(encoding="utf-8")), library, packages=packages)


def reached(files: Iterable[Path], library: Path = LIBRARY, *, packages: bool = False) -> list[Path]:
    """These files and all in the library that they import, directly or not, sorted; packages: see `imports`."""
    waiting, seen = [*files], set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imported(file, library, packages)
    return sorted(seen)


def code_digest(paths: Iterable[Path], library: Path = LIBRARY) -> str:
    """Digest of what these files of the library do; see the head of this file."""
    parts = [platform.python_version_tuple()[0]]
    for path in paths:
        name = path.relative_to(library).as_posix()
        if name not in NEUTRAL and path.name != "__init__.py":
            parts += [name, _module_code(path)]
    return digest(*parts)


@functools.cache
def _closure_digest(modules: tuple[str, ...], library: Path) -> str:
    files = [file for module in modules if (file := _file(module, library))]
    return code_digest(reached(files, library) if modules else sorted(library.rglob("*.py")), library)


def digest_of(*code: Any, library: Path = LIBRARY) -> str:
    """Digest of the code of some results: what computes them, and all that it imports.

    Args:
        code: Functions, classes, modules or names of modules; InputError for one that is not of this library. Without
            any, all code of the library counts.
        library: Its folder.
    """
    for part in code:
        if not is_ours(part, library):
            raise InputError(f"{part!r} is no code of {NAME}: results of it are not kept, as its changes go unnoticed")
    return _closure_digest(tuple(sorted({_module_of(part) for part in code})), library)


def is_ours(part: Any, library: Path = LIBRARY) -> bool:
    """Whether a function or class is written in this library."""
    return _file(_module_of(part), library) is not None


def _module_of(part: Any) -> str:
    """Name of the module that a function or class is written in, or of a module itself."""
    return part if isinstance(part, str) else getattr(part, "__module__", "") or getattr(part, "__name__", "")
