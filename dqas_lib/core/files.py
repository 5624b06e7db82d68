"""Files: written so that readers see the old one or the new one, arrays read with suspicion.

`np.load` trusts the header of each array and allocates what it claims; here the claim is checked first against the
bytes that are there, and the whole archive against the size of its file. Nothing is unpickled.
"""

import io
import math
import os
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
from numpy.lib import format as npy

from dqas_lib.core.errors import DataError, InputError, reason_of

# [ours] an archive that unpacks to more than this many bytes and to this many times its own size is taken for a bomb
BOMB_BYTES = 1 << 30
BOMB_RATIO = 100


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


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file of this content, as `writing_atomically` does."""
    with writing_atomically(path) as file:
        file.write(content)


@contextmanager
def refused_writes(path: Path, remedy: str = "free space there") -> Iterator[None]:
    """Turn an OSError of the block, a full or locked disk, into a DataError that names `path` and the way out."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written ({reason_of(error)}): {remedy}") from error


def flush_folder(folder: Path) -> None:
    """Make a renaming in `folder` last through a power cut, where the system can (Windows cannot open a folder)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path, *, older_than: float = 86_400.0) -> None:
    """Remove temporary files that a killed process left in `folder` more than `older_than` seconds ago."""
    for temporary in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > older_than:
                temporary.unlink()


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
    objects, a bomb, more claimed than is there.
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
            chosen = {name: info for name, info in infos.items() if wanted is None or name in wanted}
            return {name: _read_member(archive, info, where) for name, info in chosen.items()}


def read_npy(content: bytes, *, where: str) -> np.ndarray:
    """The array of an .npy; where: its name in messages. Raises DataError, whatever is wrong, as `read_npz` does."""
    with _hostile(f"{where} is no array"):
        _check_header(io.BytesIO(content), len(content), where)
        return _check_text(npy.read_array(io.BytesIO(content), allow_pickle=False), where)


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


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> np.ndarray:
    what = f"{where}: {info.filename}"
    with archive.open(info) as member:
        _check_header(member, info.file_size, what)
    with archive.open(info) as member:
        array = npy.read_array(member, allow_pickle=False)
        member.read(1)  # the checksum of the archive is compared only when its end is read
    return _check_text(array, what)


def _check_header(file: IO[bytes], size: int, what: str) -> None:
    """DataError unless an .npy of `size` bytes holds just the plain array that its header claims."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise DataError(f"{what} is of .npy version {version}; 1.0 to 3.0 are read")
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled Python objects, which are never loaded")
    if any(side < 0 for side in shape):
        raise DataError(f"{what} claims the shape {shape}")
    there, claimed = size - file.tell(), math.prod(shape) * dtype.itemsize
    if claimed != there:
        raise DataError(f"{what} claims {claimed:,} bytes {shape} {dtype} and holds {there:,}: damaged")


def _check_text(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.atleast_1d(array).view(array.dtype.str[0] + "u4")
        if codes.max() > 0x10FFFF:  # NumPy would end in a SystemError when such a text is looked at
            raise DataError(f"{what} holds what is no Unicode text: make or fetch the file again")
    return array
