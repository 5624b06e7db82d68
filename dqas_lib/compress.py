"""A folder of one's own images -> a part of it: chosen on small copies, written as the original files [ours]."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dqas_lib.compressed.byte_budget import as_many_as_fit, bytes_asked
from dqas_lib.core.checks import a_path, number, one_of
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.store import Store, default_root, versions
from dqas_lib.core.texts import plain
from dqas_lib.data.image_set import ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.data.near_duplicates import near_duplicates
from dqas_lib.data.originals import FORMS, LINKS, Originals, check_room, check_target, write_originals
from dqas_lib.methods.base import Method, get_method
from dqas_lib.methods.dqas_plus import DQASPlus
from dqas_lib.methods.random import Random
from dqas_lib.quantize import Selection, quantize
from dqas_lib.training.setting import Setting
from dqas_lib.update import joined, update, vanished

SIZE = 32  # [ours] side in pixels of the copies that are looked at: 100,000 take 300 MB
MANY = 20_000  # [ours] images from which a CPU learns with the small network
IMBALANCED = 1.5  # [ours] largest class / smallest from which random choice with equal classes is the reference
RECORD, KEPT, DROPPED, NEAR, REFERENCE = (
    "selection.json", "kept.txt", "dropped.txt", "near_duplicates.txt", "reference.txt"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Compressed:
    """What `compress_folder` did.

    Args:
        path: The new data set.
        kept: Files chosen; dropped: (file, why) of the others; reference: of a random choice with equal classes, where
            classes are imbalanced, else (). near: (file, earlier file that it resembles, cosine).
        classes: Class -> images to choose from, kept, and in the reference.
        bytes: Of the files to choose from, and of those kept; seconds: by stage.
        gone: Classes of the set that grows of which no new image has come.
    """

    path: Path
    kept: tuple[str, ...]
    dropped: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str, float], ...]
    reference: tuple[str, ...]
    classes: Mapping[str, tuple[int, ...]]
    bytes: tuple[int, int]
    seconds: dict[str, float]
    gone: tuple[str, ...] = ()

    def __str__(self) -> str:
        total, stages = sum(counts[0] for counts in self.classes.values()), self.seconds.items()
        repeated = len({file for file, _, _ in self.near}.intersection(self.kept))
        lines = [
            f"kept {len(self.kept):,} of {total:,} images of {len(self.classes):,} classes ({DROPPED}: the rest)",
            f"{len(self.near):,} images are near-duplicates of an earlier one ({NEAR}), {repeated:,} of them kept",
        ]
        if self.reference:
            lines.append(f"the classes are imbalanced: what to beat is {REFERENCE}, random with equal classes")
        if self.gone:
            lines.append(f"no new image is of class {', '.join(map(repr, self.gone))}: what was chosen of it stays")
        size = f"{self.bytes[1] / 1e6:,.1f} MB of {self.bytes[0] / 1e6:,.1f} MB"
        return "\n".join([*lines, f"{self.path}: {size} ({', '.join(f'{name} {s:.0f} s' for name, s in stages)})"])


def compress_folder(
    folder: str | Path,
    out: str | Path,
    ratio: float | None = None,
    *,
    bytes: int | str | None = None,
    join: str | Path | None = None,
    method: str | Method | None = None,
    seed: int = 0,
    setting: Setting | None = None,
    form: str = "folder",
    link: str = "none",
    size: int = SIZE,
    fit: str = "crop",
    on_error: str = "stop",
    duplicates: str = "drop",
    mirror: bool = True,
    near: float = 0.97,
    progress: bool = False,
) -> Compressed:
    """Choose images of a folder and write their original files as a data set of their own, with lists of both parts.

    With train/ and test/ the choice is made in train/; else among all the images. Beside the data set lie the lists of
    files kept and dropped, with the reason, of near-duplicates, and how the choice was made.

    Args:
        folder: As in `load_images`; it is only read.
        out: The new folder, outside of `folder`; nothing or an empty folder is there.
        ratio: Fraction of the images to keep, in (0, 1].
        bytes: In place of a ratio: what the chosen files may take together, in their own resolution and format (lists
            and record come on top); a whole number, "20 MB", or "10%" of all the files. As many images as fit.
        join: A folder that this function wrote before, with form "folder": what it holds stays, and the images of
            `folder` are those that have come since (`update`); ratio and method are then those of before.
        method: As in `quantize`; None: "dqas-plus".
        setting: None: chosen by device and number of images, results kept in `Store.default()`.
        form, link: As in `data.originals.write_originals`.
        size, fit, on_error, duplicates, mirror: As in `load_images`; size is that of the copies the choice is made on.
        near: Cosine of near-duplicates, as in `data.near_duplicates`.

    Raises:
        InputError, DataError: One sentence on what is wrong and the way out; nothing is left behind.
    """
    folder, out = a_path("the folder", folder), a_path("out", out)
    old = None if join is None else a_path("join", join)
    one_of("form", form, FORMS)
    one_of("link", link, LINKS)
    number("near", near, 0, 1, ends="(]")
    sources = [folder] if old is None else [folder, old]
    check_target(out, *sources)
    if bytes is not None if old is not None else (ratio is None) == (bytes is None):
        asked = "a ratio among the new images, no bytes" if old else "a ratio, such as 0.1, or bytes, such as '20MB'"
        raise InputError(f"give {asked}; got ratio {ratio!r} and bytes {bytes!r}")
    if ratio is not None:  # what cannot be is told before the files are read
        number("ratio", ratio, 0, 1, ends="(]")
    if bytes is not None:
        bytes_asked(bytes, lambda: 10**15)
    for here in sources:
        if not here.is_dir():
            raise InputError(f"{str(here)!r} is no folder: give a folder of images")
        if default_root().resolve().is_relative_to(here.resolve()):
            raise InputError(f"work would be kept in {default_root()}, inside {here}: set DQAS_DATA to another folder")
    record = {} if old is None else _record(old)
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def lap(stage: str) -> None:
        seconds[stage] = time.perf_counter() - started - sum(seconds.values())

    options: dict[str, Any] = {"size": size, "fit": fit, "on_error": on_error, "mirror": mirror, "progress": progress}
    images, originals, left_out = _looked_at(folder, duplicates, options)
    everything = images
    if old is not None:
        known, before, _ = _looked_at(old, "keep", options)
        if gone := sorted({*record["kept"]}.difference(known.ids.tolist())):
            way_out = f"put them back, or take their lines out of {old / KEPT}"
            raise DataError(f"{len(gone):,} files chosen before are not in {old}, {gone[0]!r} for one: {way_out}")
        everything, originals = joined(known, images), before + originals
    lap("reading")
    total = originals.total_bytes(images.ids.tolist())
    limit = 0 if bytes is None else bytes_asked(bytes, lambda: total)
    share = ratio or record.get("ratio") or min(1.0, limit / total)
    if link == "none" and form != "yolo":  # said before the work; the files chosen may be larger than the mean
        check_room(out, int(share * total))
    match, cosine = near_duplicates(everything.images, near)
    lap("near-duplicates")
    setting, default = _suited(images, setting, progress)
    chosen = get_method(method or record.get("method") or default)

    def choose(share: float) -> Selection:
        return quantize(images, share, method=chosen, seed=seed, setting=setting, patchify="none")

    if old is not None:
        selection = update(known, images, ratio=share, method=chosen, seed=seed, setting=setting, missing="keep")
    elif bytes is None:
        selection = choose(share)
    else:
        n = len(images)
        selection = as_many_as_fit(lambda k: choose(k / n), limit, n, lambda s: originals.total_bytes(s.ids.tolist()))
        share = selection.image_ratio
    balanced, sizes = None, everything.class_counts
    if old is None and sizes.max() > IMBALANCED * sizes[sizes > 0].min():
        balanced = quantize(images, share, method=Random(balance="equal"), seed=seed, setting=setting).images
    lap("choosing")
    kept, names, parts = selection.ids.tolist(), everything.ids.tolist(), (everything, selection.images, balanced)
    inside, counts = set(kept), [part.class_counts.tolist() for part in parts if part is not None]
    done = Compressed(
        path=out,
        kept=tuple(kept),
        dropped=(*((name, "not chosen") for name in names if name not in inside), *left_out),
        near=tuple((names[i], names[match[i]], round(float(cosine[i]), 4)) for i in np.flatnonzero(match >= 0)),
        reference=() if balanced is None else tuple(balanced.ids.tolist()),
        classes=dict(zip(everything.class_names, zip(*counts, strict=True), strict=True)),
        bytes=(originals.total_bytes(names), originals.total_bytes(kept)),
        seconds=seconds,
        gone=() if old is None else vanished(known, images),
    )
    told = {"ratio": share, "method": chosen.name, "seed": seed, "pool": record.get("pool", 0) + len(images)}
    told |= {"kept": len(kept), "classes": done.classes, "settings": selection.settings, "versions": versions()}
    write_originals(
        out,
        originals,
        dict(zip(kept, (selection.images.class_names[c] for c in selection.images.labels), strict=True)),
        everything.class_names,
        {RECORD: json.dumps(told, ensure_ascii=False) + "\n", **_lists(done)},
        form=form,
        link=link,
        card=f"# {plain(out.name)}\n\n{len(kept):,} of {told['pool']:,} images, chosen by `{chosen.name}` of the DQAS "
        f"kit, seed {seed}: see `{RECORD}`. `{DROPPED}` lists the others.\n",
    )
    lap("writing")
    return done


def _looked_at(
    folder: Path, duplicates: str, options: dict[str, Any]
) -> tuple[ImageSet, Originals, tuple[tuple[str, str], ...]]:
    """The images to choose from, by the names they will have; their files; what cannot be used, and why."""
    data = load_images(folder, duplicates=duplicates, **options)
    own_split = data.train.ids[0].startswith("train/") and data.test.ids[0].startswith("test/")
    pool = data.train if own_split else joined(data.train, data.test)
    files = pool.ids.tolist()
    if odd := [file for file in files if len(file.splitlines()) != 1 or "\t" in file]:
        raise InputError(f"{odd[0]!r}: a name with a tab or a line break cannot stand in a list: rename the file")
    names = [file.removeprefix("train/") if own_split else file for file in files]
    left_out = tuple((item["file"], item["reason"]) for item in pool.provenance["left_out"])
    return replace(pool, ids=np.array(names)), Originals.of(folder, dict(zip(names, files, strict=True))), left_out


def _suited(images: ImageSet, given: Setting | None, progress: bool) -> tuple[Setting, Method]:
    """Setting, where none is given, and method for this number of images: a CPU cannot look at many often."""
    setting = given or Setting(device="auto", store=Store.default(), progress=progress)
    if setting.device != "cpu" or len(images) <= MANY:
        return setting, DQASPlus()
    return given or setting.replace(network="small_cnn", recipe="cpu"), DQASPlus(checkpoints=4)


def _lists(done: Compressed) -> dict[str, str]:
    """Name -> content of the lists: a line a file, its columns parted by tabs."""
    rows: dict[str, Sequence[tuple[Any, ...]]] = {
        KEPT: [(file,) for file in done.kept],
        DROPPED: done.dropped,
        NEAR: done.near,
        **({REFERENCE: [(file,) for file in done.reference]} if done.reference else {}),
    }
    return {name: "".join("\t".join(map(str, row)) + "\n" for row in lines) for name, lines in rows.items()}


def _record(folder: Path) -> dict[str, Any]:
    """How the choice in a folder was made."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        kept = (folder / KEPT).read_text(encoding="utf-8").splitlines()
        how = {"ratio": float(record["ratio"]), "method": str(record["method"]), "pool": int(record["pool"])}
        return {**how, "kept": kept}
    except (OSError, ValueError, KeyError, TypeError):
        files = f"{RECORD} and {KEPT}"
        raise DataError(f"{folder} holds no {files} of an earlier choice: give a folder that compress wrote") from None
