"""Reports: finished runs -> executed notebooks, figures and tables under readable names, and a README made of them.

Layout: notebooks/<profile>/<run>.ipynb, figures/<profile>/<run>/<figure>.png and .svg (.txt: what it shows, in words),
tables/<profile>/<run>/<table>.csv, and <profile>.json with the provenance of each run: id, parameters, code, versions,
machine, and the SHA-256 of every file. README.md is generated from these files alone; nothing in it is typed in.
"""

import csv
import hashlib
import html
import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.child import leave_out_formats
from dqas_lib.reproduce.folder import RUNS, finished, read_json
from dqas_lib.reproduce.profiles import Profile, Run

KINDS = ("figures", "tables")
KEPT = ("kernelspec", "language_info", "widgets")  # of an executed notebook's metadata
LARGEST_BYTES = 2_000_000
INSTALLED_AT = re.compile(r"""(?:[A-Za-z]:)?[/\\][^\n:"']*[/\\]site-packages[/\\]""")


def collect(profile: Profile, reports: Path) -> Path:
    """Bring the outputs of the profile's finished runs into place; gives the README's path.

    A file whose content is unchanged is not touched. What a run no longer writes is removed; what a run that is not
    finished wrote earlier stays, and is said to be earlier.
    """
    provenance = reports / f"{profile.name}.json"
    earlier = {run["name"]: run for run in runs_of(provenance) or []}
    runs = []
    for run in profile.runs:
        if record := finished(reports, run.id):
            runs.append(_publish(profile, run, record, reports))
        elif run.name in earlier:
            runs.append({**earlier[run.name], "current": False})
    _remove_others(profile, runs, reports)
    about = {"profile": profile.name, "title": profile.title, "about": profile.about, "full": profile.full}
    content = json.dumps({**about, "planned": len(profile.runs), "runs": runs}, indent=1, ensure_ascii=False)
    _write(provenance, (content + "\n").encode())
    _write(reports / "README.md", make_readme(reports).encode())
    return reports / "README.md"


def runs_of(provenance: Path) -> list[dict[str, Any]] | None:
    """The runs of a profile's provenance file, None when it is absent or damaged."""
    runs = read_json(provenance).get("runs")
    return runs if isinstance(runs, list) else None


def _write(path: Path, content: bytes) -> str:
    """Write what is new; gives the content's SHA-256."""
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def _publish(profile: Profile, run: Run, record: Mapping[str, Any], reports: Path) -> dict[str, Any]:
    source = reports / RUNS / run.id
    contents = {
        f"{kind}/{profile.name}/{run.name}/{path.name}": path.read_bytes()
        for kind in KINDS
        for path in sorted((source / kind).glob("*"))
    }
    contents[f"notebooks/{profile.name}/{run.name}.ipynb"] = _published_notebook(run, source / "notebook.ipynb")
    files = {name: _write(reports / name, content) for name, content in contents.items()}
    return {
        **{key: value for key, value in record.items() if key not in ("profile", "status", "code", "error")},
        "values": read_json(source / "result.json")["values"],
        "name": run.name,
        "files": files,
        "current": True,
    }


def _published_notebook(run: Run, path: Path) -> bytes:
    """The executed notebook with the present prose, without paths and clock times, and signed as trusted."""
    leave_out_formats()
    import nbformat
    from nbformat.sign import NotebookNotary

    def tagged(cell: Any, tag: str) -> bool:
        return tag in cell.metadata.get("tags", [])

    executed = nbformat.read(path, as_version=4)
    notebook = nbformat.reads(run.notebook.content, as_version=4)
    results = [cell for cell in executed.cells if cell.cell_type == "code"]
    injected = [cell for cell in results if tagged(cell, "injected-parameters")]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, result in zip(code, [cell for cell in results if cell not in injected], strict=True):
        cell.outputs, cell.execution_count = result.outputs, result.execution_count
        for output in cell.outputs:
            if output.output_type == "stream":  # a warning tells where its package lies
                output.text = INSTALLED_AT.sub("", output.text)
    for cell in injected:
        cell.metadata = nbformat.from_dict({"tags": ["injected-parameters"]})
    place = next((number for number, cell in enumerate(notebook.cells, start=1) if tagged(cell, "parameters")), 0)
    notebook.cells[place:place] = injected
    kept = {key: value for key, value in executed.metadata.items() if key in KEPT}
    notebook.metadata = nbformat.from_dict({**kept, "dqas": {"run": run.id, "parameters": dict(run.parameters)}})
    notebook.nbformat, notebook.nbformat_minor = executed.nbformat, executed.nbformat_minor
    try:  # signed for this user, so that JupyterLab shows its widgets and styles without asking
        NotebookNotary().sign(notebook)
    except Exception as error:  # a home folder that cannot be written to, a signature database of another version
        warnings.warn(f"the executed notebook could not be signed: {error}", stacklevel=2)
    return (nbformat.writes(notebook) + "\n").encode()


def _remove_others(profile: Profile, records: Sequence[Mapping[str, Any]], reports: Path) -> None:
    """Remove files of this profile that no run of it wrote: those of renamed runs and figures."""
    known = {name for record in records for name in record["files"]}
    for kind in (*KINDS, "notebooks"):
        for path in sorted((reports / kind / profile.name).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path.relative_to(reports).as_posix() not in known:
                path.unlink()


def make_readme(reports: Path) -> str:
    """The text of reports/README.md, from the provenance files and the tables."""

    def alt(stem: str) -> str:
        file = reports / f"{stem}.txt"
        text = file.read_text(encoding="utf-8").strip() if file.is_file() else Path(stem).name
        return html.escape(text)

    def rows(name: str) -> list[list[str]] | None:
        file = reports / name
        return list(csv.reader(io.StringIO(file.read_text(encoding="utf-8")))) if file.is_file() else None

    profiles = [read_json(path) for path in sorted(reports.glob("*.json")) if runs_of(path) is not None]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"alt": alt, "rows": rows, "number": _number, "basename": lambda name: Path(name).name}
    environment.filters["settings"] = lambda given: ", ".join(f"{k} = {json.dumps(v)}" for k, v in given.items())
    environment.tests["search"] = lambda name, pattern: re.search(pattern, name)
    template = environment.from_string(Path(__file__).with_name("README.md.jinja").read_text(encoding="utf-8"))
    return template.render(profiles=sorted(profiles, key=lambda record: (record["full"], record["profile"])))


def _number(value: str) -> str:
    """A number as text with four significant digits; other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number == int(number if abs(number) < 1e15 else 0) and "." not in value else f"{number:.4g}"


def too_large(reports: Path, profile: Profile) -> list[str]:
    """Collected files that are too large for a repository."""
    files = [reports / name for run in runs_of(reports / f"{profile.name}.json") or [] for name in run["files"]]
    return [str(path) for path in files if path.is_file() and path.stat().st_size > LARGEST_BYTES]
