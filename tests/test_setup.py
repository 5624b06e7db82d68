"""The files a newcomer starts from agree with each other."""

import ast
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from places import REPOSITORY

import dqas_lib

LOCK = (REPOSITORY / "requirements.lock").read_text()
MAKEFILE = (REPOSITORY / "Makefile").read_text()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_conda_file_installs_this_package_with_extras_that_exist():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert plain == [f"python{PROJECT['requires-python']}", "pip"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert len(pip) == 1
    extras = re.fullmatch(r"--editable \.\[(.+)\]", pip[0]).group(1).split(",")
    assert {"notebooks", "test"} <= set(extras) <= set(PROJECT["optional-dependencies"])
    locked = re.findall(r"--extra (\S+)", MAKEFILE)
    assert set(extras) <= set(locked) <= set(PROJECT["optional-dependencies"])  # both ways in install the same


def lock():
    """name -> version of every package in the lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE))


def test_the_lock_holds_every_dependency_at_a_version_that_is_allowed():
    extras = re.findall(r"--extra (\S+)", MAKEFILE)
    wanted = [*PROJECT["dependencies"], *(d for extra in extras for d in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(lock()[requirement.name]), f"run make lock: {requirement}"


def test_the_lock_pins_with_hashes_and_names_no_registry():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 50
    assert all(re.match(r"[\w.-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCK
    assert "--index" not in LOCK


def test_the_version_has_one_source():
    assert PROJECT["dynamic"] == ["version"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    assert citation["version"] == dqas_lib.__version__ == re.search(r"^## (\d\S*)", changelog, re.MULTILINE).group(1)


def imported(path):
    """Top-level names of the modules a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        yield from (name.split(".")[0] for name in names)


def test_every_import_of_the_library_is_declared():
    names = {
        "sklearn": "scikit-learn",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "IPython": "ipykernel",
        "skimage": "scikit-image",
    }
    declared = PROJECT["dependencies"] + [d for extra in PROJECT["optional-dependencies"].values() for d in extra]
    declared = {re.match(r"[\w.-]+", requirement).group().lower() for requirement in declared}
    for path in (REPOSITORY / "dqas_lib").rglob("*.py"):
        for module in imported(path):
            if module in sys.stdlib_module_names or module == "dqas_lib":
                continue
            assert names.get(module, module).lower() in declared, f"{path.name} imports {module}, which is not declared"


def test_importing_the_library_loads_neither_plots_nor_data_libraries():
    heavy = ("matplotlib", "sklearn", "pandas", "torchvision", "papermill", "seaborn", "scipy.ndimage", "scipy.stats")
    heavy += ("scipy.optimize",)
    code = f"import sys, dqas_lib; dqas_lib.quantize; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stdout.strip() == "[]"


def test_the_library_is_imported_when_it_is_used():
    """PyTorch takes seconds, and `--help` has half a second; the function `quantize` stays one, not its module."""
    code = """
import sys, dqas_lib
print("torch" in sys.modules, {*dqas_lib.__all__} <= {*dir(dqas_lib)})
import dqas_lib.experiments.compare
from dqas_lib import quantize, train
print(callable(quantize), dqas_lib.quantize is quantize, all(hasattr(dqas_lib, name) for name in dqas_lib.__all__))
print(hasattr(dqas_lib, "no_such_name"))"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stdout.split() == ["False", "True", "True", "True", "True", "False"]


def test_help_and_a_mistyped_profile_are_answered_before_anything_large_is_imported():
    code = """
import sys
from dqas_lib.reproduce.cli import main
large = {"torch", "numpy", "pandas", "pydantic", "yaml"}
print(main(["--profile", "quikc"]), [*large.intersection(sys.modules)])"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stdout.strip() == "2 []"
    assert "did you mean 'quick'?" in result.stderr
    command = [
        sys.executable,
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{code}".replace("quikc", "quick"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)  # no packages at all
    assert result.stderr.startswith("error: this needs the extra 'notebooks' (no filelock, ")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="this sends a signal as Ctrl-C does")
@pytest.mark.parametrize("module", ["argparse", "numpy", "datetime"])
@pytest.mark.parametrize("command", ["dqas_lib.reproduce --dry-run", "dqas_lib compress here --out there --ratio 0.1"])
def test_ctrl_c_while_a_command_is_imported_is_one_line(command, module, tmp_path):
    """Also while NumPy imports datetime, where a KeyboardInterrupt becomes an ImportError."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, signal, sys

class Stop:
    def find_spec(self, name, path, target=None):
        if name == {module!r} and "dqas_lib" in sys.modules:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Stop())""")
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    result = subprocess.run(
        [sys.executable, "-m", *command.split()],
        env={**os.environ, "PYTHONPATH": paths, "DQAS_DATA": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.count("\n")) == (130, 1), result.stderr
    assert result.stderr.startswith("stopped")


def test_make_help_lists_every_documented_target():
    result = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    listed = re.findall(r"^make (\S+)", result.stdout, re.MULTILINE)
    assert {"reproduce", "test", "lab", "help", "lint"} <= set(listed)
