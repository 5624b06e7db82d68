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

from dqas_lib.core.files import write_atomically
from dqas_lib.reproduce.profiles import Profile, Run
from dqas_lib.reproduce.runs import RUNS, finished

KINDS = ("figures", "tables")


SHOWN_ROWS, SHOWN_COLUMNS = 32, 12


LARGEST_BYTES = 2_000_000


INSTALLED_AT = re.compile(r"""(?:[A-Za-z]:)?[/\\][^\n:"']*[/\\]site-packages[/\\]""")


def collect(profile: Profile, reports: Path) -> Path:
    """Bring the outputs of the profile's finished runs into place; gives the README's path.

    A file whose content is unchanged is not touched. What a run no longer writes is removed; what a run that is not
    finished wrote earlier stays, and is said to be earlier.
    """
    record_path = reports / f"{profile.name}.json"
    earlier = {run["name"]: run for run in read_records(record_path).get("runs", [])}
    kept = []
    for run in profile.runs:
        found = finished(reports, run.id)
        if found is None:
            if run.name in earlier:
                kept.append({**earlier[run.name], "current": False})
        elif earlier.get(run.name, {}).get("run") == run.id and _unchanged(reports, earlier[run.name], run):
            kept.append({**earlier[run.name], "current": True})
        else:
            kept.append(_collect_run(profile, run, found, reports))
    _remove_strangers(profile, kept, reports)
    record = {
        "profile": profile.name,
        "title": profile.title,
        "about": profile.about,
        "full": profile.full,
        "planned": len(profile.runs),
        "runs": kept,
    }
    _write(record_path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    readme = reports / "README.md"
    _write(readme, make_readme(reports).encode())
    return readme


def read_records(path: Path) -> dict[str, Any]:
    """A profile's provenance file, {} when it is absent or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) and isinstance(value.get("runs"), list) else {}


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _prose(run: Run) -> str:
    """Digest of the source notebook as it is: its prose may change while its code does not."""
    return hashlib.sha256(run.notebook.content.encode()).hexdigest()


def _unchanged(reports: Path, record: Mapping[str, Any], run: Run) -> bool:
    if record.get("source_sha256") != _prose(run):
        return False
    return all((reports / name).is_file() and _sha(reports / name) == sha for name, sha in record["files"].items())


def _collect_run(profile: Profile, run: Run, found: Mapping[str, Any], reports: Path) -> dict[str, Any]:
    source = reports / RUNS / run.id
    files: dict[str, str] = {}
    for kind in KINDS:
        target = reports / kind / profile.name / run.name
        for path in sorted((source / kind).glob("*")):
            _write(target / path.name, path.read_bytes())
            files[(target / path.name).relative_to(reports).as_posix()] = _sha(path)
    notebook = reports / "notebooks" / profile.name / f"{run.name}.ipynb"
    _write(notebook, _published_notebook(run, source / "notebook.ipynb"))
    files[notebook.relative_to(reports).as_posix()] = _sha(notebook)
    record = {key: value for key, value in found.items() if key not in ("profile", "status", "code", "error")}
    record |= {"values": json.loads((source / "result.json").read_text(encoding="utf-8"))["values"]}
    return {**record, "name": run.name, "source_sha256": _prose(run), "files": files, "current": True}


def _published_notebook(run: Run, executed: Path) -> bytes:
    """The executed notebook with the present prose, without paths and clock times, and signed as trusted."""
    import nbformat

    outputs = nbformat.read(executed, as_version=4)
    notebook = nbformat.reads(run.notebook.content, as_version=4)
    ran = [cell for cell in outputs.cells if cell.cell_type == "code"]
    injected = [cell for cell in ran if "injected-parameters" in cell.metadata.get("tags", [])]
    ran = iter([cell for cell in ran if cell not in injected])
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            result = next(ran)
            cell.outputs, cell.execution_count = result.outputs, result.execution_count
            for output in cell.outputs:
                if output.output_type == "stream":  # a warning tells where its package lies
                    output.text = INSTALLED_AT.sub("", output.text)
        cells.append(cell)
        if injected and "parameters" in cell.metadata.get("tags", []):
            cells.append(nbformat.from_dict({**injected[0], "metadata": {"tags": ["injected-parameters"]}}))
    if injected and len(cells) == len(notebook.cells):
        cells.insert(0, nbformat.from_dict({**injected[0], "metadata": {"tags": ["injected-parameters"]}}))
    notebook.cells = cells
    notebook.metadata = {
        **{key: outputs.metadata[key] for key in ("kernelspec", "language_info", "widgets") if key in outputs.metadata},
        "dqas": {"run": run.id, "parameters": dict(run.parameters)},
    }
    notebook.nbformat, notebook.nbformat_minor = outputs.nbformat, outputs.nbformat_minor
    _sign(notebook)
    return (nbformat.writes(notebook) + "\n").encode()


def _sign(notebook: Any) -> None:
    """Sign it for this user, so that JupyterLab shows its widgets and styles without asking."""
    from nbformat.sign import NotebookNotary

    try:
        NotebookNotary().sign(notebook)
    except Exception as error:  # a home folder that cannot be written to, a signature database of another version
        warnings.warn(f"the executed notebook could not be signed: {error}", stacklevel=2)


def _remove_strangers(profile: Profile, records: Sequence[Mapping[str, Any]], reports: Path) -> None:
    """Remove files of this profile that no run of it wrote: those of renamed runs and figures."""
    known = {name for record in records for name in record["files"]}
    for kind in (*KINDS, "notebooks"):
        folder = reports / kind / profile.name
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(reports).as_posix() not in known:
                path.unlink()


def make_readme(reports: Path) -> str:
    """The text of reports/README.md, from the provenance files and the tables."""
    records = [read_records(path) for path in sorted(reports.glob("*.json"))]
    records = sorted((record for record in records if record), key=lambda record: (record["full"], record["profile"]))
    lines = [
        "# Reports",
        "",
        "This page is generated by `python -m dqas_lib.reproduce` from the runs' own files; nothing is typed",
        "in by hand. Every figure and table belongs to one run; the run's parameters, code, versions, machine and the",
        "checksum of each file are in the profile's `.json` beside this page.",
        "",
        "| profile | settings | runs finished | last run | machine |",
        "|---|---|---|---|---|",
    ]
    for record in records:
        runs = record["runs"]
        now = sum(run["current"] for run in runs)
        last = max((run["ended"] for run in runs), default="never")
        machines = " · ".join(sorted({run["machine"] for run in runs})) or "-"
        kind = "full, as published" if record["full"] else "reduced"
        name = record["profile"]
        lines.append(f"| [{name}](#{_anchor(name)}) | {kind} | {now} of {record['planned']} | {last} | {machines} |")
    for record in records:
        lines += ["", *_profile_section(record, reports)]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return "profile-" + name.lower()


def _profile_section(record: Mapping[str, Any], reports: Path) -> list[str]:
    name = record["profile"]
    kind = "a **full** run with the published settings" if record["full"] else "a **reduced** run"
    lines = [f'<a id="{_anchor(name)}"></a>', "", f"## {record['title']}", ""]
    lines += [f"`--profile {name}`, {kind}. {record['about']}".rstrip(), ""]
    lines += ["| run | parameters set | started (UTC) | seconds | peak memory | code |", "|---|---|---|---|---|---|"]
    for run in record["runs"]:
        notebook = f"notebooks/{name}/{run['name']}.ipynb"
        given = (
            ", ".join(f"{key} = {json.dumps(value)}" for key, value in run["parameters"].items()) or "the notebook's"
        )
        commit = (run.get("commit") or "?")[:10] + (" + changes" if run.get("changed") else "")
        memory = f"{run['peak_memory_mb']:,} MB" if run.get("peak_memory_mb") else "?"
        stale = "" if run["current"] else " (of an earlier version of notebook or library)"
        lines.append(
            f"| [{run['name']}]({notebook}){stale} | {_cell(given)} | {run['started'][:16].replace('T', ' ')} "
            f"| {run['seconds']:.0f} | {memory} | {commit} |"
        )
    for run in record["runs"]:
        lines += _run_section(run, reports)
    return lines


def _run_section(run: Mapping[str, Any], reports: Path) -> list[str]:
    figures = [name for name in run["files"] if name.endswith(".png")]
    tables = [name for name in run["files"] if name.endswith(".csv")]
    if not figures and not tables:
        return []
    lines = ["", f"### {run['name']}", "", f"Run `{run['run']}`, {run['machine']}."]
    for name in figures:
        stem = name.removesuffix(".png")
        alt_file, vector = reports / f"{stem}.txt", f"{stem}.svg"
        alt = alt_file.read_text(encoding="utf-8").strip() if alt_file.is_file() else Path(stem).name
        link = f" ([vector]({vector}))" if vector in run["files"] else ""
        lines += ["", f'<img src="{name}" alt="{html.escape(alt, quote=True)}">', "", f"*{Path(stem).name}*{link}"]
    for name in tables:
        lines += ["", *_table(name, reports / name)]
    return lines


def _table(name: str, path: Path) -> list[str]:
    if not path.is_file():
        return [f"{name} is missing."]
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"))))
    title = f"**[{Path(name).stem}]({name})**"
    if not rows:
        return [f"{title}: empty."]
    head, body = rows[0], rows[1:]
    if len(head) > SHOWN_COLUMNS or len(body) > SHOWN_ROWS:
        return [f"{title}: {len(body)} rows, {len(head)} columns ({', '.join(head[:SHOWN_COLUMNS])} ...)."]
    lines = [title, "", "| " + " | ".join(_cell(value) for value in head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(_cell(_number(value)) for value in row) + " |" for row in body]


def _number(value: str) -> str:
    """A number as text with four significant digits; other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number == int(number if abs(number) < 1e15 else 0) and "." not in value else f"{number:.4g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def too_large(reports: Path, profile: Profile) -> list[str]:
    """Collected files that are too large for a repository."""
    names = read_records(reports / f"{profile.name}.json").get("runs", [])
    files = [reports / name for run in names for name in run["files"]]
    return [str(path) for path in files if path.is_file() and path.stat().st_size > LARGEST_BYTES]
