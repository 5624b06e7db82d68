"""Files: written so that readers see the old one or the new one, arrays read with suspicion.

`np.load` trusts the header of each array and allocates what it claims; here the claim is checked first against the
bytes that are there, and the whole archive against the size of its file. Nothing is unpickled.
"""

import hashlib
import io
import math
import os
import platform
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from dqas_lib.core.errors import DataError, InputError, reason_of

# [ours] an archive that unpacks to more than this many bytes and to this many times its own size is taken for a bomb
BOMB_BYTES = 1 << 30
BOMB_RATIO = 100
# temporary names tell who writes there: a machine and a process; the rest nobody can foresee
HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-[0-9a-f]{12}\.tmp", re.DOTALL)
STALE_SECONDS = 86_400.0  # what another machine began and has not touched for so long is abandoned


def _begin(path: Path) -> Path:
    """A temporary name beside `path`, for what shall stand there; what killed processes left beside it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # a folder that may be written but not listed
        for entry in path.parent.iterdir():
            if (match := TEMPORARY.fullmatch(entry.name)) and _abandoned(entry, *match.groups()):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return path.with_name(f".{path.name}.{HOST}-{os.getpid()}-{secrets.token_hex(6)}.tmp")


def _abandoned(temporary: Path, host: str, process: str) -> bool:
    try:
        if host == HOST and os.name == "posix":
            os.kill(int(process), 0)  # only asks whether there is such a process
            return False
        return time.time() - temporary.lstat().st_mtime > STALE_SECONDS
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False


@contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; at the end flush it to disk and rename it to `path`.

    Readers see the old file or the new one, whenever the writing stops; an error leaves nothing behind. DataError when
    something else than a file is at `path`: a folder, a link, a device.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DataError(f"{path} cannot be written (it exists and is no regular file): give another path")
    temporary = _begin(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file of this content, as `writing_atomically` does."""
    with writing_atomically(path) as file:
        file.write(content)


@contextmanager
def writing_folder(path: Path, check: Callable[[], object] | None = None) -> Iterator[Path]:
    """A temporary folder beside `path`, to be filled; at the end it is renamed to `path`.

    An error leaves nothing behind. check: given when the folder at `path` may be replaced; called just before, and
    raises when it may not after all. Between two renamings the old folder has another name: see `whole_folder`.
    """
    temporary = _begin(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    try:
        temporary.mkdir()
        yield temporary
        if check is not None and path.exists():
            check()
            os.rename(path, aside)
        try:
            os.rename(temporary, path)
        except OSError:
            if aside.exists():
                os.rename(aside, path)
            raise
        _flush_folder(path.parent)
        for replaced in _set_aside(path):
            shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def whole_folder(path: Path) -> Path:
    """`path`; or, if a replacement was cut off between its two renamings, the old folder under its other name."""
    aside = [] if path.exists() else _set_aside(path)
    return max(aside, key=lambda entry: entry.stat().st_mtime, default=path)


def _set_aside(path: Path) -> list[Path]:
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.old")
    try:
        return [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
    except OSError:
        return []


@contextmanager
def refused_writes(path: Path, remedy: str = "free space there") -> Iterator[None]:
    """Turn an OSError of the block, a full or locked disk, into a DataError that names `path` and the way out."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written ({reason_of(error)}): {remedy}") from error


def _flush_folder(folder: Path) -> None:
    """Make a renaming in `folder` last through a power cut, where the system can (Windows cannot open a folder)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def npy_bytes(array: np.ndarray) -> bytes:
    """The content of an .npy of this array."""
    buffer = io.BytesIO()
    npy.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays uncompressed, in the layout of `np.savez`, array by array: no second copy in memory.

    Equal arrays give equal bytes. InputError for an array that would have to be pickled.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise InputError(f"array {name!r} holds Python objects ({array.dtype}): give numbers or strings")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.asanyarray(array), allow_pickle=False)


def read_npz(
    file: Path | BinaryIO, *, where: str | None = None, only: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of an .npz, all or those named in `only` (a name that is not there is no error).

    where: its name in messages (default: the path). Raises DataError, whatever is wrong: no archive, damaged, pickled
    objects, a bomb, more claimed than is there, texts that are none.
    """
    where = where or str(file)
    wanted = None if only is None else set(only)
    with _hostile(f"{where} cannot be read as an .npz of plain arrays"):
        try:
            archive = zipfile.ZipFile(file)
        except FileNotFoundError:
            raise DataError(f"{where} is not there: give the path of an existing .npz") from None
        with archive:
            _refuse_bombs(archive, where)
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return {
                name: _read_array(partial(archive.open, info), info.file_size, f"{where}: {name}")
                for name, info in infos.items()
                if wanted is None or name in wanted
            }


def read_npy(content: bytes, *, where: str) -> np.ndarray:
    """The array of an .npy; where: its name in messages. Raises DataError, whatever is wrong, as `read_npz` does."""
    with _hostile(f"{where} is no array"):
        return _read_array(lambda: io.BytesIO(content), len(content), where)


def map_npy(path: Path) -> np.ndarray:
    """The array of an .npy, mapped into memory, read-only: of its bytes only those that are asked for are read.

    Raises DataError, whatever is wrong, as `read_npz` does. The file must stay as it is while the array is in use.
    """
    with _hostile(f"{path} cannot be mapped as a plain array"):
        array = npy.open_memmap(path, mode="r")
        if array.offset + array.nbytes != (there := path.stat().st_size):
            raise DataError(f"{path} claims {array.shape} {array.dtype} and holds {there:,} bytes: damaged")
        return array


@contextmanager
def _hostile(failure: str) -> Iterator[None]:
    """Whatever a parser raises on hostile bytes, the caller gets one kind of error."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{failure} ({reason_of(error)}): make or fetch it again") from error


def _refuse_bombs(archive: zipfile.ZipFile, where: str) -> None:
    infos, packed = archive.infolist(), archive.fp.seek(0, 2) if archive.fp else 0
    unpacked = sum(info.file_size for info in infos)
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise DataError(
            f"{where} would unpack {packed:,} bytes to {unpacked:,}: refused as a decompression bomb; "
            "store the arrays uncompressed if they are yours"
        )
    if len({info.filename for info in infos}) != len(infos):
        raise DataError(f"{where} holds two arrays of one name: make or fetch it again")


def _read_array(opened: Callable[[], IO[bytes]], size: int, what: str) -> np.ndarray:
    """The array of an .npy of `size` bytes, opened twice; DataError unless it is the plain one its header claims."""
    with opened() as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise DataError(f"{what} is of .npy version {version}; 1.0 to 3.0 are read")
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
        there, claimed = size - file.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled Python objects, which are never loaded")
    if any(side < 0 for side in shape):
        raise DataError(f"{what} claims the shape {shape}")
    if claimed != there:
        raise DataError(f"{what} claims {claimed:,} bytes {shape} {dtype} and holds {there:,}: damaged")
    with opened() as file:
        array = npy.read_array(file, allow_pickle=False)
        file.read(1)  # the checksum of an archive is compared only when the end of a member is read
    if array.dtype.kind == "U" and claimed:
        codes = np.atleast_1d(array).view(array.dtype.str[0] + "u4")  # NumPy ends in a SystemError above 0x10FFFF
        if codes.max() > 0x10FFFF or np.any((codes >= 0xD800) & (codes <= 0xDFFF)):
            raise DataError(f"{what} holds what is no Unicode text: make or fetch the file again")
    return array
