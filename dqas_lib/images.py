"""Data sets: a name, a prepared .npz or a folder -> uint8 images, labels, stable ids, class names.

Known names: "digits" (scikit-learn's, embedded), "cifar10", "cifar100", "tiny-imagenet" (official archives, checked by
SHA-256). CIFAR is read from its official *binary* archive: same images in the same order as the pickled one, and no
pickle is ever loaded. Every image has an id that survives any selection: its position in the official training file
(digits, CIFAR) or its path in the archive or folder. Ids travel, positions do not.
"""

import hashlib
import io
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from dqas_lib.errors import DataError, InputError
from dqas_lib.seeds import generator
from dqas_lib.store import default_root, write_atomically

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images of one size.

    images: (N, H, W, 3) uint8; labels: (N,) int64 in [0, C); ids: (N,) int64 or str, unique, stable;
    class_names: C names; name: the data set's; mirror: whether a mirrored image is still of its class (training
    augments with mirror images only then: a mirrored digit is no digit).
    Raises InputError when shapes, types or ids disagree.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    class_names: tuple[str, ...]
    name: str = ""
    mirror: bool = True
    _order: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise InputError(f"images must be (N, H, W, 3) uint8; got {self.images.shape} {self.images.dtype}")
        if self.labels.shape != (len(self.images),) or self.ids.shape != (len(self.images),):
            raise InputError(
                f"{len(self.images)} images need as many labels and ids; got {self.labels.shape}, {self.ids.shape}"
            )
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.class_names):
            raise InputError(
                f"labels must lie in [0, {len(self.class_names)}); got {self.labels.min()} ... {self.labels.max()}"
            )
        order = np.argsort(self.ids, kind="stable")
        if np.any(self.ids[order][1:] == self.ids[order][:-1]):
            raise InputError("ids must be unique: the same id names two images")
        object.__setattr__(self, "_order", order)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def size(self) -> int:
        """Height of the images in pixels (they are square in every known data set)."""
        return self.images.shape[1]

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of images of each class."""
        return np.bincount(self.labels, minlength=self.n_classes)

    def positions(self, ids: Sequence | np.ndarray) -> np.ndarray:
        """Positions of the given ids in this set, in the order given; InputError names an id that is not here."""
        wanted = np.asarray(ids, dtype=self.ids.dtype if len(ids) == 0 else None)
        if not len(self) or not len(wanted):
            if len(wanted):
                raise InputError(f"id {wanted[0]!r} is not in this (empty) set")
            return np.zeros(0, dtype=np.int64)
        places = np.searchsorted(self.ids, wanted, sorter=self._order)
        found = self._order[np.minimum(places, len(self) - 1)]
        if not np.array_equal(self.ids[found], wanted):
            missing = wanted[self.ids[found] != wanted][0]
            raise InputError(f"id {missing!r} is not in the data set {self.name!r} ({len(self)} images)")
        return found

    def take(self, positions: np.ndarray) -> "ImageSet":
        """The images at these positions, in this order."""
        return replace(self, images=self.images[positions], labels=self.labels[positions], ids=self.ids[positions])

    def select(self, ids: Sequence | np.ndarray) -> "ImageSet":
        """The images with these ids, in this order."""
        return self.take(self.positions(ids))

    def with_images(self, images: np.ndarray) -> "ImageSet":
        """The same samples (ids, labels) with other pixels, e.g. reconstructed ones."""
        return replace(self, images=images)

    def hold_out(self, fraction: float, seed: int) -> tuple["ImageSet", "ImageSet"]:
        """(rest, held out), stratified: each class gives round(fraction * n_c) images, drawn by `seed`.

        A class keeps at least one image in the rest, and gives at least one when it has two or more.
        """
        if not 0 < fraction < 1:
            raise InputError(f"the held-out fraction must lie between 0 and 1; got {fraction!r}")
        held = np.zeros(len(self), dtype=bool)
        for label, count in enumerate(self.class_counts):
            wanted = min(max(round(fraction * count), 1), count - 1) if count else 0
            members = np.flatnonzero(self.labels == label)
            members = members[np.argsort(self.ids[members], kind="stable")]
            held[generator(seed, "hold_out", label).permutation(members)[:wanted]] = True
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))

    def fingerprint(self) -> str:
        """SHA-256 (20 hex digits) of pixels, labels, ids and class names: what a cached result was computed on."""
        sha = hashlib.sha256()
        for part in (self.images, self.labels):
            sha.update(str(part.shape).encode())
            sha.update(np.ascontiguousarray(part).data)
        sha.update("\0".join([*self.ids.astype(str), *self.class_names, str(self.mirror)]).encode())
        return sha.hexdigest()[:20]


@dataclass(frozen=True, eq=False)
class DataSet:
    """A training and a test set of one name. The test set is for the final evaluation only."""

    name: str
    train: ImageSet
    test: ImageSet


@dataclass(frozen=True)
class Official:
    """An official archive: where it is, its SHA-256, and how it is read."""

    url: str
    sha256: str
    read: Callable[[Path], dict[str, np.ndarray]]

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[1]


def load_images(
    source: str | Path,
    *,
    root: str | Path | None = None,
    size: int | None = None,
    progress: bool = True,
) -> DataSet:
    """Load a data set.

    source: "digits", "cifar10", "cifar100", "tiny-imagenet", a prepared .npz (data/README.md gives its arrays), or a
    folder with one folder a class, or with train/ and test/ of that kind.
    root: where prepared sets and downloads live (default: data/).
    size: side in pixels for a folder of one's own (default: the files' common size, or 64); others keep their size.
    Raises InputError for an unknown source, DataError for missing, damaged or inconsistent data.
    """
    root = Path(root) if root is not None else default_root()
    name = str(source)
    if name == "digits":
        return _digits()
    if name in OFFICIAL:
        return _official(name, root, progress=progress)
    path = Path(source)
    if path.suffix == ".npz":
        if not path.is_file():
            raise DataError(f"no prepared data set at {path}: give the path of an existing .npz")
        return _prepared(path, path.stem)
    if path.is_dir():
        return _folder(path, size=size, progress=progress)
    known = ", ".join(["digits", *OFFICIAL])
    raise InputError(f"unknown data set {name!r}: give one of {known}, a prepared .npz, or an existing folder")


def _digits() -> DataSet:
    """scikit-learn's 1,797 digits, 8 x 8 grey in 17 steps, as 3-channel uint8; 1,200 train, 597 test, stratified."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    grey = np.round(raw.images * (255 / 16)).astype(np.uint8)
    whole = ImageSet(
        images=np.repeat(grey[..., None], 3, axis=3),
        labels=raw.target.astype(np.int64),
        ids=np.arange(len(grey), dtype=np.int64),
        class_names=tuple(str(label) for label in raw.target_names),
        name="digits",
        mirror=False,
    )
    rest, test = whole.hold_out(597 / 1797, seed=0)
    return DataSet("digits", train=rest, test=test)


# ---------------------------------------------------------------------------------------------- prepared .npz


def _prepared(path: Path, name: str) -> DataSet:
    """Read a prepared .npz; DataError names what is wrong with it."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{path} cannot be read as a prepared data set ({error}): prepare it again") from error
    needed = ["train_images", "train_labels", "test_images", "test_labels", "class_names"]
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: a prepared data set holds {', '.join(needed)}")
    if arrays["class_names"].dtype.kind != "U" or arrays["class_names"].ndim != 1:
        raise DataError(f"{path}: class_names must be a list of strings; got {arrays['class_names'].dtype}")
    class_names = tuple(arrays["class_names"].tolist())
    sets = {}
    for split in ("train", "test"):
        labels = arrays[f"{split}_labels"]
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(f"{path}: {split}_labels must be whole numbers, one an image; got {labels.dtype}")
        ids = arrays.get(f"{split}_index")
        if ids is None:
            ids = np.arange(len(labels), dtype=np.int64)
        try:
            sets[split] = ImageSet(
                images=arrays[f"{split}_images"],
                labels=labels.astype(np.int64),
                ids=ids,
                class_names=class_names,
                name=name,
                mirror=bool(arrays.get("mirror", True)),
            )
        except InputError as error:
            raise DataError(f"{path}, {split} part: {error}") from error
    _check_classes(sets["train"], str(path))
    return DataSet(name, **sets)


def _check_classes(train: ImageSet, where: str) -> None:
    empty = [train.class_names[c] for c in np.flatnonzero(train.class_counts == 0)]
    if empty:
        names = ", ".join(repr(name) for name in empty[:5]) + (" ..." if len(empty) > 5 else "")
        raise DataError(
            f"{where}: {len(empty)} of {train.n_classes} classes have no training image ({names}): "
            "add images or leave the class out of the class names"
        )


# ---------------------------------------------------------------------------------------------- official archives


def _official(name: str, root: Path, *, progress: bool) -> DataSet:
    prepared = root / f"{name}.npz"
    if not prepared.is_file():
        official = OFFICIAL[name]
        unpacked = root / "tiny-imagenet-200"
        if name == "tiny-imagenet" and unpacked.is_dir():
            arrays = _tiny_imagenet(_FolderTree(unpacked), progress=progress)
        else:
            archive = root / "downloads" / official.filename
            fetch(official.url, archive, official.sha256, progress=progress)
            try:
                arrays = official.read(archive)
            except (OSError, ValueError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
                raise DataError(f"{archive} cannot be read ({error}): delete it and try again") from error
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(prepared, buffer.getbuffer())
    return _prepared(prepared, name)


def fetch(url: str, path: Path, sha256: str, *, progress: bool = True, timeout: float = 30.0) -> None:
    """Download `url` to `path` unless it is there; check its SHA-256 either way.

    A file with another checksum is moved to <path>.rejected and not used. Raises DataError.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with urllib.request.urlopen(url, timeout=timeout) as answer, open(temporary, "wb") as file:
                total = int(answer.headers.get("Content-Length", 0))
                with tqdm(total=total or None, unit="B", unit_scale=True, desc=path.name, disable=not progress) as bar:
                    while block := answer.read(1 << 20):
                        file.write(block)
                        bar.update(len(block))
            if total and temporary.stat().st_size != total:
                raise DataError(
                    f"the download of {url} broke off after {temporary.stat().st_size:,} of {total:,} bytes: try again"
                )
            os.replace(temporary, path)
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise DataError(
                f"{path.name} could not be downloaded from {url} ({reason}): "
                f"fetch it elsewhere and put it at {path}, then run this again"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    if sha.hexdigest() != sha256:
        rejected = path.with_name(path.name + ".rejected")
        shutil.move(path, rejected)
        raise DataError(
            f"{path.name} has SHA-256 {sha.hexdigest()[:16]}... instead of {sha256[:16]}...: it is kept aside as "
            f"{rejected} and not used; run this again to download it anew"
        )


def _cifar(archive: Path, *, files: dict[str, list[str]], names: str, label_bytes: int) -> dict[str, np.ndarray]:
    """Read an official CIFAR binary archive: records of label byte(s) and 3,072 bytes, channel by channel."""
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}

        def content(filename: str) -> bytes:
            if filename not in members:
                raise DataError(f"{archive} holds no {filename}: it is not the official binary archive")
            return tar.extractfile(members[filename]).read()

        arrays: dict[str, np.ndarray] = {}
        for split, parts in files.items():
            raw = np.frombuffer(b"".join(content(part) for part in parts), dtype=np.uint8)
            if raw.size % (label_bytes + 3072):
                raise DataError(f"{archive}: the {split} part ends inside a record; download it again")
            records = raw.reshape(-1, label_bytes + 3072)
            pixels = records[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            arrays[f"{split}_images"] = np.ascontiguousarray(pixels)
            arrays[f"{split}_labels"] = records[:, label_bytes - 1].astype(np.int64)
        arrays["class_names"] = np.array(content(names).decode().split())
    arrays["train_index"] = np.arange(len(arrays["train_labels"]), dtype=np.int64)
    return arrays


def read_cifar10(archive: Path) -> dict[str, np.ndarray]:
    """Arrays of the official cifar-10-binary.tar.gz."""
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    return _cifar(archive, files=files, names="batches.meta.txt", label_bytes=1)


def read_cifar100(archive: Path) -> dict[str, np.ndarray]:
    """Arrays of the official cifar-100-binary.tar.gz, with its 100 fine labels."""
    files = {"train": ["train.bin"], "test": ["test.bin"]}
    return _cifar(archive, files=files, names="fine_label_names.txt", label_bytes=2)


class _FolderTree:
    """Files of an unpacked folder, by relative path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = sorted(str(path.relative_to(root).as_posix()) for path in root.rglob("*") if path.is_file())

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


class _ZipTree:
    """Files of a zip archive below its single top folder, read in place: nothing is extracted."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive
        self.top = next((info.filename.split("/")[0] for info in archive.infolist()), "") + "/"
        infos = [info.filename for info in archive.infolist() if not info.is_dir()]
        self.names = sorted(name.removeprefix(self.top) for name in infos)

    def read(self, name: str) -> bytes:
        return self.archive.read(self.top + name)


def read_tiny_imagenet(archive: Path) -> dict[str, np.ndarray]:
    """Arrays of the official tiny-imagenet-200.zip."""
    with zipfile.ZipFile(archive) as file:
        return _tiny_imagenet(_ZipTree(file), progress=True)


def _tiny_imagenet(tree: _FolderTree | _ZipTree, *, progress: bool) -> dict[str, np.ndarray]:
    """Train images of train/<wnid>/images; test = the official val/, labelled by val_annotations.txt.

    The official test/ has no labels and is not used. About 2 % of the files are grey: they become RGB.
    """
    if "wnids.txt" not in tree.names:
        raise DataError("tiny-imagenet: wnids.txt is missing; the archive or folder is not the official one")
    wnids = tree.read("wnids.txt").decode().split()
    label_of = {wnid: label for label, wnid in enumerate(sorted(wnids))}
    train = [name for name in tree.names if name.startswith("train/") and name.lower().endswith(".jpeg")]
    wnid_of = {name: name.split("/")[1] for name in train}
    annotations = "val/val_annotations.txt"
    if annotations not in tree.names:
        raise DataError("tiny-imagenet: val/val_annotations.txt is missing, so the validation images have no labels")
    present = set(tree.names)
    for line in tree.read(annotations).decode().splitlines():
        if line.strip():
            file, wnid = line.split("\t")[:2]
            if f"val/images/{file}" in present:
                wnid_of[f"val/images/{file}"] = wnid
    test = [name for name in wnid_of if name.startswith("val/")]
    unknown = sorted(set(wnid_of.values()) - set(label_of))
    if unknown:
        raise DataError(f"tiny-imagenet: class {unknown[0]!r} is not listed in wnids.txt")
    arrays: dict[str, np.ndarray] = {"class_names": np.array(sorted(wnids))}
    for split, names in (("train", train), ("test", test)):
        decode = _Decoder(tree.read, size=64)
        arrays[f"{split}_images"] = decode.all(names, progress=progress, label=f"tiny-imagenet {split}")
        arrays[f"{split}_labels"] = np.array([label_of[wnid_of[name]] for name in names], dtype=np.int64)
        arrays[f"{split}_index"] = np.array(names)
    return arrays


OFFICIAL = {
    "cifar10": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        read_cifar10,
    ),
    "cifar100": Official(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        read_cifar100,
    ),
    "tiny-imagenet": Official(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
        read_tiny_imagenet,
    ),
}


# ---------------------------------------------------------------------------------------------- folders


class _Decoder:
    """Decodes image files to (size, size, 3) uint8: centre crop to a square, then antialiased resize."""

    def __init__(self, read: Callable[[str], bytes], size: int) -> None:
        self.read, self.size = read, size

    def one(self, name: str) -> np.ndarray | str:
        """The pixels, or a sentence that says why there are none."""
        try:
            with Image.open(io.BytesIO(self.read(name))) as image:
                image = ImageOps.exif_transpose(image).convert("RGB")
                if image.size != (self.size, self.size):
                    image = ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)
                return np.asarray(image)
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            return f"{name}: {error}"

    def all(self, names: Sequence[str], *, progress: bool, label: str) -> np.ndarray:
        """(N, size, size, 3) uint8; DataError lists every unreadable file."""
        images = np.empty((len(names), self.size, self.size, 3), dtype=np.uint8)
        failed: list[str] = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded: Iterable = pool.map(self.one, names, chunksize=64)
            for i, result in enumerate(tqdm(decoded, total=len(names), desc=label, disable=not progress)):
                if isinstance(result, str):
                    failed.append(result)
                else:
                    images[i] = result
        if failed:
            listed = "; ".join(failed[:10]) + (" ..." if len(failed) > 10 else "")
            raise DataError(f"{len(failed)} of {len(names)} image files cannot be read: {listed}")
        return images


def _folder(path: Path, *, size: int | None, progress: bool) -> DataSet:
    """A folder of class folders, or train/ and test/ of that kind; without test/ a stratified fifth is held out."""
    if size is not None and size < 2:
        raise InputError(f"size is the side in pixels and must be at least 2; got {size!r}")
    split = (path / "train").is_dir()
    base = path / "train" if split else path
    classes = sorted(child.name for child in base.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not classes:
        raise DataError(f"{base} has no class folders: it needs one folder a class, with images in it")
    if size is None:
        size = _common_size(base, classes)
    train = _read_tree(path, base, classes, size=size, progress=progress)
    _check_classes(train, str(base))
    if not split:
        rest, held = train.hold_out(0.2, seed=0)
        return DataSet(path.name, train=rest, test=held)
    if not (path / "test").is_dir():
        raise DataError(f"{path} has train/ but no test/: add test/, or put the class folders directly into {path}")
    return DataSet(path.name, train=train, test=_read_tree(path, path / "test", classes, size=size, progress=progress))


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def _common_size(base: Path, classes: list[str]) -> int:
    """The side of the first image of each class if all are equal squares, else 64."""
    sizes = set()
    for name in classes:
        for file in _image_files(base / name)[:1]:
            try:
                with Image.open(file) as image:
                    sizes.add(image.size)
            except (OSError, Image.DecompressionBombError):
                continue
    width, height = sizes.pop() if len(sizes) == 1 else (64, 64)
    return width if width == height else 64


def _read_tree(root: Path, base: Path, classes: list[str], *, size: int, progress: bool) -> ImageSet:
    names: list[str] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        files = _image_files(base / class_name) if (base / class_name).is_dir() else []
        names += [file.relative_to(root).as_posix() for file in files]
        labels += [label] * len(files)
    decode = _Decoder(lambda name: (root / name).read_bytes(), size=size)
    return ImageSet(
        images=decode.all(names, progress=progress, label=str(base)),
        labels=np.array(labels, dtype=np.int64),
        ids=np.array(names, dtype=str),
        class_names=tuple(classes),
        name=root.name,
    )
