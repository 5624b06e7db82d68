"""Originals: the files of chosen images, in the resolution and format they have, as a data set of their own [ours].

Ids of a folder's images are its relative paths, so a selection made on small copies leads back to the files. They are
read, never written; what is made of them is complete when it appears.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dqas_lib.core.checks import one_of
from dqas_lib.core.errors import DataError, InputError, reason_of
from dqas_lib.core.files import refused_writes, writing_folder

FORMS = ("folder", "parquet", "yolo")
LINKS = ("none", "hard", "symbolic")
SHARD_BYTES, ROW_GROUP = 400_000_000, 100  # [ours] of originals in a Parquet file, and rows written at a time
SPARE = 1.02  # room asked for: names and tables take a little, too


@dataclass(frozen=True, eq=False)
class Originals:
    """Files of folders of one's own, as they were when they were looked at.

    Args:
        folders: Where they lie; nothing is ever written there.
        paths: Name in what is written, a relative path with "/" -> the file.
        stamps: Name -> size in bytes and time of change in ns.
    """

    folders: tuple[Path, ...]
    paths: Mapping[str, Path]
    stamps: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, folder: Path, files: Mapping[str, str]) -> "Originals":
        """Files of a folder (name -> relative path there) as they are now; DataError for one that is gone."""
        paths = {name: folder.resolve() / file for name, file in files.items()}
        return cls((folder,), paths, {name: _stamp(path) for name, path in paths.items()})

    def __add__(self, other: "Originals") -> "Originals":
        folders = (*self.folders, *other.folders)
        return Originals(folders, {**self.paths, **other.paths}, {**self.stamps, **other.stamps})

    def path(self, name: str) -> Path:
        """The file, unchanged since it was looked at; else DataError."""
        if _stamp(self.paths[name]) != self.stamps[name]:
            how = "changed since the images were looked at: run this again when nothing changes"
            raise DataError(f"{self.paths[name]} {how}")
        return self.paths[name]

    def total_bytes(self, names: Iterable[str]) -> int:
        """Of these files."""
        return sum(self.stamps[name][0] for name in names)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path} was moved or removed meanwhile ({reason_of(error)}): run this again") from error
    return stat.st_size, stat.st_mtime_ns


def check_target(out: Path, *folders: Path) -> None:
    """InputError unless a new folder can stand at `out`: nothing or an empty folder is there, outside of `folders`."""
    for folder in folders:
        if out.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{out} lies in {folder}, which is only read: give a path outside it")
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and next(out.iterdir(), None) is None):
        raise InputError(f"{out} exists and is not an empty folder: give another path, or empty it")


def check_room(out: Path, needed: int, way_out: str = "free some, give a smaller ratio, or link instead") -> None:
    """DataError when the disk of `out` has less room than this many bytes; asked before the work for them begins."""
    place = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed * SPARE:
        raise DataError(f"{out} needs {needed / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB left: {way_out}")


def write_originals(
    out: Path,
    originals: Originals,
    chosen: Mapping[str, str],
    class_names: Sequence[str],
    texts: Mapping[str, str],
    *,
    form: str = "folder",
    link: str = "none",
    card: str = "",
) -> Path:
    """Write the chosen originals as a data set, whole or not at all.

    Args:
        out: Where; see `check_target`.
        chosen: File -> name of its class.
        class_names: All of them, in the order of the labels.
        texts: Name -> content of further files beside them.
        form: "folder": a folder per class. "parquet": data/*.parquet with image bytes and label, and a data set card,
            as Hugging Face's `load_dataset(out)` reads it. "yolo": train.txt, a list of the originals where they lie,
            names.txt and the images.data that darknet's classifier reads (it takes the class from the path).
        link: For "folder": "hard" or "symbolic" links in place of copies. Both are the original file: what is changed
            there is changed here.
        card: What the data set card says, in Markdown.

    Raises:
        InputError, DataError: For a target that cannot be, no room on the disk, an original that changed or is gone.
    """
    one_of("form", form, FORMS)
    one_of("link", link, LINKS)
    check_target(out, *originals.folders)
    if form != "yolo" and link == "none":
        check_room(out, originals.total_bytes(chosen))
    writer: Callable[..., None] = {"folder": _as_folder, "parquet": _as_parquet, "yolo": _as_list}[form]
    with refused_writes(out), writing_folder(out) as folder:
        writer(folder, out, originals, chosen, class_names, link=link, card=card)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    return out


def _as_folder(
    folder: Path, out: Path, originals: Originals, chosen: Mapping[str, str], class_names: Sequence[str], **options: str
) -> None:
    put: Any = {"none": shutil.copy2, "hard": os.link, "symbolic": os.symlink}[options["link"]]
    for name in chosen:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        put(originals.path(name), target)


def _as_list(
    folder: Path, out: Path, originals: Originals, chosen: Mapping[str, str], class_names: Sequence[str], **options: str
) -> None:
    there = out.resolve()
    contents = {
        "train.txt": "".join(f"{originals.path(name)}\n" for name in chosen),
        "names.txt": "".join(f"{name}\n" for name in class_names),
        "images.data": f"classes = {len(class_names)}\ntrain = {there}/train.txt\nlabels = {there}/names.txt\n",
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")


def _as_parquet(
    folder: Path, out: Path, originals: Originals, chosen: Mapping[str, str], class_names: Sequence[str], **options: str
) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError("Parquet needs the extra 'parquet': pip install 'dqas-kit[parquet]'") from error
    features = {"image": {"_type": "Image"}, "label": {"names": [*class_names], "_type": "ClassLabel"}}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    described = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([("image", image), ("label", pa.int64())], metadata=described)
    label_of = {name: label for label, name in enumerate(class_names)}
    names, shards = [*chosen], max(1, -(-originals.total_bytes(chosen) // SHARD_BYTES))
    (folder / "data").mkdir()
    for shard in range(shards):
        part = names[len(names) * shard // shards : len(names) * (shard + 1) // shards]
        path = folder / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="none") as file:  # pictures are compressed already
            for start in range(0, len(part), ROW_GROUP):
                rows = [
                    {
                        "image": {"bytes": originals.path(name).read_bytes(), "path": name},
                        "label": label_of[chosen[name]],
                    }
                    for name in part[start : start + ROW_GROUP]
                ]
                file.write_table(pa.Table.from_pylist(rows, schema=schema))
    yaml = "task_categories: [image-classification]\nconfigs:\n- config_name: default\n  data_files:\n"
    yaml += "  - split: train\n    path: data/train-*\n"
    (folder / "README.md").write_text(f"---\n{yaml}---\n\n{options['card']}", encoding="utf-8")
