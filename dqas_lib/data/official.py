"""Data sets known by name: scikit-learn's digits, and official archives, downloaded, checked and read.

CIFAR is read from its official *binary* archive: same images in the same order as the pickled one, and no pickle is
ever loaded. Archives are read in place: nothing in them is extracted, so no name in them can point elsewhere.
"""

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from einops import rearrange
from tqdm.auto import tqdm

from dqas_lib.core.errors import DataError, DqasError, reason_of
from dqas_lib.core.files import refused_writes, write_npz, writing_atomically
from dqas_lib.data.decoding import MEMBER_BYTES, Fault, decode_all, refuse_faults
from dqas_lib.data.image_set import DATA_SETS, DataSet, ImageSet
from dqas_lib.data.prepared import read_prepared

# every official archive is below 250 MB; a server that sends more than this is not one of theirs
DOWNLOAD_BYTES = 1 << 30
Arrays = dict[str, np.ndarray]


@DATA_SETS.register
class Digits:
    """scikit-learn's 1,797 digits, 8 x 8 gray in 17 steps, as 3-channel uint8; a third is the test set, stratified."""

    name = "digits"

    def load(self, root: Path, progress: bool) -> DataSet:
        """The digits; nothing is read from or written into `root`."""
        from sklearn.datasets import load_digits

        raw = load_digits()
        gray = np.round(raw.images * (255 / 16)).astype(np.uint8)
        whole = ImageSet(
            images=np.repeat(gray[..., None], 3, axis=3),
            labels=raw.target.astype(np.int64),
            ids=np.arange(len(gray), dtype=np.int64),
            class_names=tuple(str(label) for label in raw.target_names),
            name=self.name,
            mirror=False,
        )
        return DataSet(self.name, *whole.hold_out(597 / 1797, seed=0))


@dataclass(frozen=True)
class Official:
    """A data set of which there is an official archive.

    Args:
        name: What it is loaded by.
        url: Address of the archive; sha256: its checksum; counts: how many (training, test) images it holds.
        read: Archive, counts, progress -> the arrays of a prepared data set.
        unpacked: Name of a folder that `read` takes in place of the archive, if it lies in the data folder.
    """

    name: str
    url: str
    sha256: str
    counts: tuple[int, int]
    read: Callable[[Path, tuple[int, int], bool], Arrays]
    unpacked: str = ""

    @property
    def filename(self) -> str:
        """Name of the archive."""
        return self.url.rsplit("/", 1)[1]

    def load(self, root: Path, progress: bool) -> DataSet:
        """The data set, of the first of these that is there: <name>.npz, the unpacked folder, downloads/<archive>.

        An archive that is not there is downloaded; the .npz is written for the next time. Raises DataError.
        """
        prepared, source = root / f"{self.name}.npz", root / self.unpacked
        if prepared.is_file():
            return read_prepared(prepared, self.name)
        if not (self.unpacked and source.is_dir()):
            source = root / "downloads" / self.filename
            fetch(self.url, source, self.sha256, progress=progress)
        try:
            arrays = self.read(source, self.counts, progress)
        except DqasError:
            raise
        except Exception as error:  # tarfile, zipfile, zlib: many kinds, one meaning
            raise DataError(f"{source} cannot be read ({reason_of(error)}): delete it and try again") from error
        with refused_writes(prepared), writing_atomically(prepared) as file:
            write_npz(file, arrays)
        return read_prepared(prepared, self.name)


def fetch(url: str, path: Path, sha256: str, *, progress: bool = True, timeout: float = 30.0) -> None:
    """Download a file to `path` unless it is there, and check it either way; nothing half-written is left.

    A file with another checksum is moved to <path>.rejected and not used. The download is given up after `timeout`
    seconds without a byte. Raises DataError.
    """
    import pooch  # 40 ms, a tenth of what importing this library takes

    if not path.is_file():
        _download(url, path, progress=progress, timeout=timeout)
    actual = pooch.file_hash(str(path), alg="sha256")
    if actual != sha256:
        rejected = path.with_name(path.name + ".rejected")
        shutil.move(path, rejected)
        raise DataError(
            f"{path.name} has SHA-256 {actual[:16]}... instead of {sha256[:16]}...: it is kept aside as "
            f"{rejected} and not used; run this again to download it anew"
        )


class _Bounded:
    """A file that refuses what no official archive would send."""

    def __init__(self, file: BinaryIO, url: str) -> None:
        self.file, self.url, self.flush = file, url, file.flush

    def write(self, block: bytes) -> None:
        self.file.write(block)
        if self.file.tell() > DOWNLOAD_BYTES:
            much = f"more than {DOWNLOAD_BYTES:,} bytes"
            raise DataError(f"{self.url} sends {much}: it is not the archive; nothing is kept")


def _download(url: str, path: Path, *, progress: bool, timeout: float) -> None:
    import pooch

    bar = tqdm(total=1, unit="B", unit_scale=True, desc=path.name, disable=not progress)  # pooch sets the total
    plain = {"Accept-Encoding": "identity"}  # the file as it is, not squeezed once more on the way
    try:
        with writing_atomically(path) as file, bar:
            download = pooch.HTTPDownloader(bar, chunk_size=1 << 20, timeout=timeout, headers=plain)
            download(url, _Bounded(file, url), None)
    except (OSError, ValueError) as error:
        root: BaseException = error
        while root.__context__ is not None:  # "connection refused" lies below the layers of a request
            root = root.__context__
        got, left = getattr(root, "partial", None), getattr(root, "expected", None)
        failure = f"{path.name} could not be downloaded from {url} ({reason_of(root)})"
        remedy = f"fetch it elsewhere and put it at {path}, then run this again"
        if isinstance(got, int) and isinstance(left, int):
            failure, remedy = f"the download of {url} broke off after {got:,} of {got + left:,} bytes", "try again"
        raise DataError(f"{failure}: {remedy}") from error


def read_cifar(
    archive: Path,
    counts: tuple[int, int],
    progress: bool = False,
    *,
    train: Sequence[str],
    test: Sequence[str],
    names: str,
    label_bytes: int,
) -> Arrays:
    """Arrays of an official CIFAR binary archive: records of label byte(s) and 3,072 bytes, channel by channel.

    train, test, names: Its files of records, and the one of class names; the last of the label bytes is the label.
    """
    record = label_bytes + 3 * 32 * 32
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar if member.isfile()}
        missing = [name for name in (*train, *test, names) if name not in members]
        if missing:
            raise DataError(f"{archive} holds no {', '.join(missing)}: it is not the official binary archive")
        if members[names].size > MEMBER_BYTES:
            raise DataError(f"{archive}: {names} would take {members[names].size:,} bytes: refused")

        def content(files: Sequence[str]) -> bytes:
            opened = (tar.extractfile(members[file]) for file in files)
            return b"".join(file.read() for file in opened if file is not None)

        class_names = content([names]).decode().split()
        arrays: Arrays = {"class_names": np.array(class_names)}
        for split, files, count in zip(("train", "test"), (train, test), counts, strict=True):
            size = sum(members[file].size for file in files)
            if size != count * record:
                raise DataError(
                    f"{archive}: the {split} part holds {size:,} bytes, {size / record:,.2f} images of {record:,}; "
                    f"the official one holds {count:,} images: download it again"
                )
            records = np.frombuffer(content(files), dtype=np.uint8).reshape(count, record)
            labels = records[:, label_bytes - 1]
            if labels.max(initial=0) >= len(class_names):
                raise DataError(
                    f"{archive}: a {split} image is of class {labels.max()}, but {names} names {len(class_names)} "
                    "classes: it is not the official binary archive"
                )
            arrays[f"{split}_images"] = rearrange(records[:, label_bytes:], "n (c h w) -> n h w c", h=32, w=32)
            arrays[f"{split}_labels"] = labels.astype(np.int64)
    return arrays


def read_tiny_imagenet(source: Path, counts: tuple[int, int], progress: bool = True) -> Arrays:
    """Arrays of the official tiny-imagenet-200.zip, or of its unpacked folder, which may hold fewer images."""
    if source.is_dir():
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        return _tiny_imagenet(source, files, lambda name: open(source / name, "rb"), progress)
    with zipfile.ZipFile(source) as archive:
        infos = {info.filename.partition("/")[2]: info for info in archive.infolist() if not info.is_dir()}

        def open_member(name: str) -> BinaryIO:
            if infos[name].file_size > MEMBER_BYTES:
                raise DataError(f"would unpack to {infos[name].file_size:,} bytes: refused as a decompression bomb")
            return io.BytesIO(archive.read(infos[name]))

        arrays = _tiny_imagenet(source, list(infos), open_member, progress)
    n_train, n_test = len(arrays["train_labels"]), len(arrays["test_labels"])
    if (n_train, n_test) != counts:
        raise DataError(
            f"{source} holds {n_train:,} training and {n_test:,} validation images; the official one holds "
            f"{counts[0]:,} and {counts[1]:,}: download it again"
        )
    return arrays


def _tiny_imagenet(source: Path, files: list[str], open_file: Callable[[str], BinaryIO], progress: bool) -> Arrays:
    """Train images of train/<wnid>/images; test = the official val/, labeled by val_annotations.txt.

    The official test/ has no labels and is not used. About 2 % of the files are gray: they become RGB.
    """
    annotations, texts = "val/val_annotations.txt", {}
    for needed, why in (("wnids.txt", "it lists the classes"), (annotations, "it labels the validation images")):
        if needed not in files:
            raise DataError(f"{source} holds no {needed} ({why}): it is not the official Tiny ImageNet")
        with open_file(needed) as file:
            texts[needed] = file.read(MEMBER_BYTES).decode()
    wnids = sorted(texts["wnids.txt"].split())
    train = sorted(name for name in files if name.startswith("train/") and name.lower().endswith(".jpeg"))
    lines = [line.split("\t") for line in texts[annotations].splitlines()]
    wnid_of = {f"val/images/{file}": rest[0] if rest else "" for file, *rest in lines}
    pictures = {name for name in files if name.startswith("val/images/")}
    test = [name for name in wnid_of if name in pictures]
    unlabeled = sorted(pictures - wnid_of.keys())
    if unlabeled:
        raise DataError(
            f"{source}: {len(unlabeled)} validation images have no line in {annotations} (first: {unlabeled[0]}): "
            "add their lines, or take the images away"
        )
    wnid_of |= {name: name.split("/")[1] for name in train}
    strange = sorted({wnid_of[name] for name in (*train, *test)} - {*wnids})
    if strange:
        raise DataError(f"{source}: class {strange[0]!r} is not listed in wnids.txt: add it there, or take it away")
    arrays: Arrays = {"class_names": np.array(wnids)}
    for split, names in (("train", train), ("test", test)):
        images, results = decode_all(names, open_file, size=64, progress=progress, label=f"tiny-imagenet {split}")
        refuse_faults([item for item in results if isinstance(item, Fault)], len(names), str(source))
        arrays[f"{split}_images"] = images
        arrays[f"{split}_labels"] = np.array([wnids.index(wnid_of[name]) for name in names], dtype=np.int64)
        arrays[f"{split}_index"] = np.array(names, dtype=str)
    return arrays


TORONTO = "https://www.cs.toronto.edu/~kriz"
CIFAR10 = partial(read_cifar, train=[f"data_batch_{i}.bin" for i in range(1, 6)], test=["test_batch.bin"],
                  names="batches.meta.txt", label_bytes=1)  # fmt: skip
CIFAR100 = partial(read_cifar, train=["train.bin"], test=["test.bin"], names="fine_label_names.txt", label_bytes=2)
for _known in (
    Official("cifar10", f"{TORONTO}/cifar-10-binary.tar.gz",
             "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", (50_000, 10_000), CIFAR10),
    Official("cifar100", f"{TORONTO}/cifar-100-binary.tar.gz",
             "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", (50_000, 10_000), CIFAR100),
    Official("tiny-imagenet", "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
             "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821", (100_000, 10_000), read_tiny_imagenet,
             unpacked="tiny-imagenet-200"),
):  # fmt: skip
    DATA_SETS.register(_known)
