"""Arrays in .npz and .npy files, read with suspicion: nothing is unpickled and nothing larger than it says is unpacked.

`np.load` trusts the header of each array and allocates what it claims; here the claim is checked first against the
bytes that are there, and the whole archive against the size of its file.
"""

import io
import math
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from dqas_lib.core.errors import DataError, InputError

# [ours] an archive that unpacks to more than this many bytes and to this many times its own size is taken for a bomb
BOMB_BYTES = 1 << 30


BOMB_RATIO = 100


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays uncompressed, in the layout of `np.savez`, array by array: no second copy in memory.

    Equal arrays give equal bytes. Raises InputError for an array that would have to be pickled.
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
    """The arrays of an .npz.

    file: path or open binary file; where: its name in messages (default: the path); only: names to read, the others
    are passed over (a name that is not there is no error).
    Raises DataError, whatever is wrong: no archive, damaged, pickled objects, a bomb, more claimed than is there.
    """
    where = where or str(file)
    try:
        with zipfile.ZipFile(file) as archive:
            _refuse_bombs(archive, where)
            wanted = None if only is None else set(only)
            arrays = {}
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if wanted is None or name in wanted:
                    arrays[name] = _read_array(archive, info, where)
            return arrays
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{where} is not there: give the path of an existing .npz") from None
    except Exception as error:  # whatever a parser raises on hostile bytes, the caller gets one kind of error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{where} cannot be read as an .npz of plain arrays ({reason}): make or fetch it again") from (
            error
        )


def _refuse_bombs(archive: zipfile.ZipFile, where: str) -> None:
    infos = archive.infolist()
    unpacked = sum(info.file_size for info in infos)
    packed = archive.fp.seek(0, 2)
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        raise DataError(
            f"{where} would unpack {packed:,} bytes to {unpacked:,}: refused as a decompression bomb; "
            "store the arrays uncompressed if they are yours"
        )
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise DataError(f"{where} holds two arrays of one name: make or fetch it again")


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    what = f"{where}: {info.filename}"
    with archive.open(info) as member:
        _check_header(member, info.file_size, what)
    with archive.open(info) as member:
        array = npy.read_array(member, allow_pickle=False)
        member.read(1)  # the checksum of the archive is compared only when its end is read
    return _check_text(array, what)


def read_npy(content: bytes, *, where: str) -> np.ndarray:
    """The array of an .npy; where: its name in messages. Raises DataError, whatever is wrong, as `read_npz` does."""
    try:
        _check_header(io.BytesIO(content), len(content), where)
        return _check_text(npy.read_array(io.BytesIO(content), allow_pickle=False), where)
    except DataError:
        raise
    except Exception as error:  # see read_npz
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{where} is no array ({reason}): make or fetch it again") from error


def _check_header(file: BinaryIO, size: int, what: str) -> None:
    """DataError unless an .npy of `size` bytes holds just the plain array that its header claims."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise DataError(f"{what} is of .npy version {version}; 1.0 to 3.0 are read")
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled Python objects, which are never loaded")
    if any(side < 0 for side in shape):
        raise DataError(f"{what} claims the shape {shape}")
    there = size - file.tell()
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != there:
        raise DataError(f"{what} claims {claimed:,} bytes {shape} {dtype} and holds {there:,}: damaged")


def _check_text(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.atleast_1d(array).view(array.dtype.str[0] + "u4")
        if codes.max() > 0x10FFFF:  # NumPy would end in a SystemError when such a text is looked at
            raise DataError(f"{what} holds what is no Unicode text: make or fetch the file again")
    return array


@contextmanager
def writing_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; at the end flush it to disk and rename it to `path`.

    Readers see the old file or the new one, whenever the writing stops; an error leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make a renaming in `folder` last through a power cut, where the system can (Windows cannot open a folder)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename: readers see the old file or the new one."""
    with writing_atomically(path) as file:
        file.write(content)


def remove_leftovers(folder: Path, *, older_than: float = 86_400.0) -> None:
    """Remove temporary files that a killed process left in `folder` more than `older_than` seconds ago."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > older_than:
                temporary.unlink()
