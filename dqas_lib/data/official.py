"""Official archives: download, check, read -> a prepared data set.

CIFAR is read from its official *binary* archive: same images in the same order as the pickled one, and no pickle is
ever loaded. Archives are read in place: nothing in them is extracted, so no name in them can point elsewhere.
"""

import hashlib
import http.client
import io
import os
import shutil
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm.auto import tqdm

from dqas_lib.core.errors import DataError, DqasError
from dqas_lib.core.files import write_npz, writing_atomically
from dqas_lib.data.decoding import MEMBER_BYTES, Fault, decode_all

# every official archive is below 250 MB; a server that sends more than this is not one of theirs
DOWNLOAD_BYTES = 1 << 30


CIFAR_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Official:
    """An official archive: where it is, its SHA-256, how many (training, test) images it holds, and how it is read.

    read: archive, counts, progress -> the arrays of a prepared data set.
    """

    url: str
    sha256: str
    counts: tuple[int, int]
    read: Callable[[Path, tuple[int, int], bool], dict[str, np.ndarray]]

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]


def prepare_official(name: str, root: Path, *, progress: bool) -> Path:
    """The prepared .npz of an official data set, made from its archive unless it is there.

    name: a key of OFFICIAL; root: the data folder. Looked for, in this order: root/<name>.npz; for tiny-imagenet an
    unpacked root/tiny-imagenet-200; root/downloads/<archive>, downloaded if it is absent. Raises DataError.
    """
    prepared = root / f"{name}.npz"
    if prepared.is_file():
        return prepared
    official = OFFICIAL[name]
    unpacked = root / "tiny-imagenet-200"
    if name == "tiny-imagenet" and unpacked.is_dir():
        source, read = unpacked, lambda: _tiny_imagenet(_FolderTree(unpacked), progress=progress)
    else:
        source = root / "downloads" / official.filename
        fetch(official.url, source, official.sha256, progress=progress)
        read = lambda: official.read(source, official.counts, progress)  # noqa: E731
    try:
        arrays = read()
    except DqasError:
        raise
    except Exception as error:  # tarfile, zipfile, zlib: many kinds, one meaning
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{source} cannot be read ({reason}): delete it and try again") from error
    try:
        with writing_atomically(prepared) as file:
            write_npz(file, arrays)
    except OSError as error:
        raise DataError(f"{prepared} cannot be written ({error.strerror or error}): free space there") from error
    return prepared


def fetch(url: str, path: Path, sha256: str, *, progress: bool = True, timeout: float = 30.0) -> None:
    """Download `url` to `path` unless it is there; check its SHA-256 either way.

    timeout: seconds without a byte after which the download is given up. A file with another checksum is moved to
    <path>.rejected and not used. Raises DataError; nothing half-written is left.
    """
    if not path.is_file():
        _download(url, path, progress=progress, timeout=timeout)
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        rejected = path.with_name(path.name + ".rejected")
        shutil.move(path, rejected)
        raise DataError(
            f"{path.name} has SHA-256 {found[:16]}... instead of {sha256[:16]}...: it is kept aside as "
            f"{rejected} and not used; run this again to download it anew"
        )


def _download(url: str, path: Path, *, progress: bool, timeout: float) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=timeout) as answer, open(temporary, "wb") as file:
            length = answer.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            with tqdm(total=total, unit="B", unit_scale=True, desc=path.name, disable=not progress) as bar:
                while (block := answer.read(1 << 20)) and file.tell() <= DOWNLOAD_BYTES:
                    file.write(block)
                    bar.update(len(block))
            got = file.tell()
        if got > DOWNLOAD_BYTES:
            raise DataError(f"{url} sends more than {DOWNLOAD_BYTES:,} bytes: it is not the archive; nothing is kept")
        if total is not None and got != total:
            raise DataError(f"the download of {url} broke off after {got:,} of {total:,} bytes: try again")
        os.replace(temporary, path)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise DataError(
            f"{path.name} could not be downloaded from {url} ({reason}): "
            f"fetch it elsewhere and put it at {path}, then run this again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cifar(
    archive: Path, counts: tuple[int, int], *, files: tuple[list[str], list[str]], names: str, label_bytes: int
) -> dict[str, np.ndarray]:
    """Read an official CIFAR binary archive: records of label byte(s) and 3,072 bytes, channel by channel."""
    record = label_bytes + CIFAR_PIXELS
    arrays: dict[str, np.ndarray] = {}
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar if member.isfile()}
        missing = [name for name in (*files[0], *files[1], names) if name not in members]
        if missing:
            raise DataError(f"{archive} holds no {', '.join(missing)}: it is not the official binary archive")
        if members[names].size > MEMBER_BYTES:
            raise DataError(f"{archive}: {names} would take {members[names].size:,} bytes: refused")
        arrays["class_names"] = np.array(tar.extractfile(members[names]).read().decode().split())
        for split, parts, count in zip(("train", "test"), files, counts, strict=True):
            size = sum(members[part].size for part in parts)
            if size != count * record:
                raise DataError(
                    f"{archive}: the {split} part holds {size:,} bytes, {size / record:,.2f} images of {record:,}; "
                    f"the official one holds {count:,} images: download it again"
                )
            raw = np.frombuffer(b"".join(tar.extractfile(members[part]).read() for part in parts), dtype=np.uint8)
            records = raw.reshape(count, record)
            labels = records[:, label_bytes - 1].astype(np.int64)
            if labels.max(initial=0) >= len(arrays["class_names"]):
                raise DataError(
                    f"{archive}: a {split} image is of class {labels.max()}, but {names} names "
                    f"{len(arrays['class_names'])} classes: it is not the official binary archive"
                )
            arrays[f"{split}_images"] = np.ascontiguousarray(
                records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            )
            arrays[f"{split}_labels"] = labels
            arrays[f"{split}_index"] = np.arange(count, dtype=np.int64)
    return arrays


def read_cifar10(archive: Path, counts: tuple[int, int], progress: bool = False) -> dict[str, np.ndarray]:
    """Arrays of the official cifar-10-binary.tar.gz."""
    files = ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"])
    return _cifar(archive, counts, files=files, names="batches.meta.txt", label_bytes=1)


def read_cifar100(archive: Path, counts: tuple[int, int], progress: bool = False) -> dict[str, np.ndarray]:
    """Arrays of the official cifar-100-binary.tar.gz, with its 100 fine labels."""
    return _cifar(archive, counts, files=(["train.bin"], ["test.bin"]), names="fine_label_names.txt", label_bytes=2)


class _FolderTree:
    """Files of an unpacked folder, by relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())

    def __str__(self) -> str:
        return str(self.root)

    def open(self, name: str) -> BinaryIO:
        return open(self.root / name, "rb")


class _ZipTree:
    """Files of a zip archive below its single top folder, read in place: nothing is extracted."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        infos = [info for info in archive.infolist() if not info.is_dir()]
        self.top = infos[0].filename.split("/")[0] + "/" if infos else ""
        self.infos = {info.filename.removeprefix(self.top): info for info in infos}
        self.names = sorted(self.infos)

    def __str__(self) -> str:
        return str(self.archive.filename)

    def open(self, name: str) -> BinaryIO:
        info = self.infos[name]
        if info.file_size > MEMBER_BYTES:
            raise DataError(f"would unpack to {info.file_size:,} bytes: refused as a decompression bomb")
        return io.BytesIO(self.archive.read(info))


def read_tiny_imagenet(archive: Path, counts: tuple[int, int], progress: bool = True) -> dict[str, np.ndarray]:
    """Arrays of the official tiny-imagenet-200.zip."""
    with zipfile.ZipFile(archive) as file:
        arrays = _tiny_imagenet(_ZipTree(file), progress=progress)
    found = len(arrays["train_labels"]), len(arrays["test_labels"])
    if found != counts:
        raise DataError(
            f"{archive} holds {found[0]:,} training and {found[1]:,} validation images; the official one holds "
            f"{counts[0]:,} and {counts[1]:,}: download it again"
        )
    return arrays


def _tiny_imagenet(tree: _FolderTree | _ZipTree, *, progress: bool) -> dict[str, np.ndarray]:
    """Train images of train/<wnid>/images; test = the official val/, labeled by val_annotations.txt.

    The official test/ has no labels and is not used. About 2 % of the files are gray: they become RGB.
    """
    annotations = "val/val_annotations.txt"
    present = set(tree.names)
    for needed, why in (("wnids.txt", "it lists the classes"), (annotations, "it labels the validation images")):
        if needed not in present:
            raise DataError(f"{tree} holds no {needed} ({why}): it is not the official Tiny ImageNet")
    wnids = sorted(_text(tree, "wnids.txt").split())
    train = [name for name in tree.names if name.startswith("train/") and name.lower().endswith(".jpeg")]
    wnid_of = {name: name.split("/")[1] for name in train}
    labeled = {}
    for line in _text(tree, annotations).splitlines():
        file, _, rest = line.partition("\t")
        if f"val/images/{file}" in present:
            labeled[f"val/images/{file}"] = rest.split("\t")[0]
    unlabeled = [name for name in tree.names if name.startswith("val/images/") and name not in labeled]
    if unlabeled:
        raise DataError(
            f"{tree}: {len(unlabeled)} validation images have no line in {annotations} (first: {unlabeled[0]}): "
            "add their lines, or take the images away"
        )
    unknown = sorted({*wnid_of.values(), *labeled.values()} - set(wnids))
    if unknown:
        raise DataError(f"{tree}: class {unknown[0]!r} is not listed in wnids.txt: add it there, or take it away")
    arrays: dict[str, np.ndarray] = {"class_names": np.array(wnids)}
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    for split, names, classes in (("train", train, wnid_of), ("test", list(labeled), labeled)):
        images, known = decode_all(names, tree.open, size=64, progress=progress, label=f"tiny-imagenet {split}")
        refuse_faults([item for item in known if isinstance(item, Fault)], len(names), str(tree))
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array([label_of[classes[name]] for name in names], dtype=np.int64)
        arrays[f"{split}_index"] = np.array(names, dtype=str)
    return arrays


def _text(tree: _FolderTree | _ZipTree, name: str) -> str:
    with tree.open(name) as file:
        return file.read(MEMBER_BYTES).decode()


def refuse_faults(faults: list[Fault], total: int, where: str, remedy: str = "mend or remove them") -> None:
    """Raise DataError that lists the unreadable files (all, up to 50), if there are any."""
    if faults:
        listed = "; ".join(str(fault) for fault in faults[:50])
        more = f"; and {len(faults) - 50:,} more" if len(faults) > 50 else ""
        raise DataError(f"{where}: {len(faults):,} of {total:,} image files cannot be used: {remedy}. {listed}{more}")


OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        (50_000, 10_000),
        read_cifar10,
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        (50_000, 10_000),
        read_cifar100,
    ),
    "tiny-imagenet": Official(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        (100_000, 10_000),
        read_tiny_imagenet,
    ),
}
