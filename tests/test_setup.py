"""The files a newcomer starts from agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib

import yaml
from places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_conda_file_installs_this_package_with_extras_that_exist():
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert plain == [f"python{PROJECT['requires-python']}", "pip"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert len(pip) == 1
    extras = re.fullmatch(r"--editable \.\[(.+)\]", pip[0]).group(1).split(",")
    assert {"notebooks", "test"} <= set(extras) <= set(PROJECT["optional-dependencies"])
    makefile = (REPOSITORY / "Makefile").read_text()
    assert f".[{','.join(extras)}]" in makefile  # both ways in install the same


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
    heavy = ("matplotlib", "sklearn", "pandas", "torchvision", "papermill", "seaborn")
    code = f"import sys, dqas_lib; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stdout.strip() == "[]"


def test_make_help_lists_every_documented_target():
    result = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    listed = re.findall(r"^make (\S+)", result.stdout, re.MULTILINE)
    assert {"reproduce", "test", "lab", "help", "lint"} <= set(listed)


def test_imports_run_one_way():
    """No module imports one that (directly or through others) imports it."""
    graph = {}
    root = REPOSITORY / "dqas_lib"
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text()
        found = set(re.findall(r"^from (dqas_lib[\w.]*) import", text, re.MULTILINE))
        for package, imported in re.findall(r"^from (dqas_lib(?:\.methods)?) import (.+)$", text, re.MULTILINE):
            submodules = {part.strip(" ()") for part in imported.split(",")}
            found |= {
                f"{package}.{part}"
                for part in submodules
                if (root.parent / package.replace(".", "/") / f"{part}.py").exists()
            }
        graph[name] = {target for target in found if target != "dqas_lib"}

    def reachable(start):
        seen, todo = set(), [start]
        while todo:
            for target in graph.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    circles = [name for name in graph if name in reachable(name)]
    assert circles == []
