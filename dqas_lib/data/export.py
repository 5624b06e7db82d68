"""Images for other tools: a folder of PNG files and a table."""

import csv
import os
import re
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from dqas_lib.core.checks import a_path, kinds
from dqas_lib.core.errors import InputError
from dqas_lib.core.files import refused_writes, writing_folder
from dqas_lib.data.image_set import ImageSet

TABLE = "images.csv"


@kinds
def export_folder(images: ImageSet, path: str | Path, *, progress: bool = False) -> Path:
    """Write <path>/<class>/<name>.png, lossless, and <path>/images.csv with columns file, class, label, id.

    Class folders have the names of the classes where a file system can hold them, else their number and what can be
    kept of the name; files are named by id, or by place and id where ids are texts. The folder is complete when it
    appears. Gives its path. InputError when it exists, DataError when it cannot be written.
    """
    path = a_path("path", path)
    if os.path.lexists(path):
        raise InputError(f"{path} exists already: give another path")
    names = _folder_names(images.class_names)
    with refused_writes(path), writing_folder(path) as folder:
        for name in names:
            (folder / name).mkdir()
        with open(folder / TABLE, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", "class", "label", "id"])
            samples = zip(images.images, images.labels.tolist(), images.ids.tolist(), strict=True)
            for place, (pixels, label, id_) in enumerate(tqdm(samples, total=len(images), disable=not progress)):
                name = f"{id_:06d}.png" if isinstance(id_, int) else f"{place:06d}-{_plain(Path(id_).stem)}.png"
                Image.fromarray(pixels).save(folder / names[label] / name)
                table.writerow([f"{names[label]}/{name}", images.class_names[label], label, id_])
    return path


def _plain(name: str) -> str:
    """What every file system holds of a name: letters, digits, '_', '-', at most 60."""
    return re.sub(r"[^\w-]+", "-", name).strip("-")[:60]


def _folder_names(class_names: tuple[str, ...]) -> list[str]:
    safe = all(re.fullmatch(r"\w[\w -]{0,60}", name) and name == name.strip() for name in class_names)
    if safe and len({name.casefold() for name in class_names}) == len(class_names):
        return list(class_names)
    return [f"{label:03d}-{_plain(name)}" for label, name in enumerate(class_names)]
