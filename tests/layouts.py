"""Official archives in their own layouts, made from given images, and a server on the loopback to fetch them from."""

import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dqas_lib.data.image_set import DATA_SETS, ImageSet


def put_official(monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    """Change where an official archive is, its checksum, or its number of images, for one test."""
    monkeypatch.setitem(DATA_SETS._items, name, replace(DATA_SETS[name], **changes))


def cifar_records(images: np.ndarray, labels: np.ndarray, label_bytes: int = 1) -> bytes:
    """Official binary records: label byte(s), then 1,024 red, 1,024 green and 1,024 blue bytes."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    coarse = np.zeros((len(images), label_bytes - 1), dtype=np.uint8)
    return np.concatenate([coarse, labels[:, None].astype(np.uint8), planes], axis=1).tobytes()


def tar_gz(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def cifar10_archive(path: Path, train: ImageSet, test: ImageSet) -> Path:
    top = "cifar-10-batches-bin"
    members = {f"{top}/batches.meta.txt": ("\n".join(train.class_names) + "\n\n").encode()}
    for number, part in enumerate(np.array_split(np.arange(len(train)), 5), start=1):
        members[f"{top}/data_batch_{number}.bin"] = cifar_records(train.images[part], train.labels[part])
    members[f"{top}/test_batch.bin"] = cifar_records(test.images, test.labels)
    members[f"{top}/readme.html"] = b"<html></html>"
    return tar_gz(path, members)


def cifar100_archive(path: Path, train: ImageSet, test: ImageSet) -> Path:
    top = "cifar-100-binary"
    members = {
        f"{top}/coarse_label_names.txt": b"things\n",
        f"{top}/fine_label_names.txt": ("\n".join(train.class_names) + "\n").encode(),
        f"{top}/train.bin": cifar_records(train.images, train.labels, 2),
        f"{top}/test.bin": cifar_records(test.images, test.labels, 2),
    }
    return tar_gz(path, members)


def zip_folder(path: Path, folder: Path) -> Path:
    """A zip of a folder, with the folder itself as its top."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    return path


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content, length = self.server.pages.get(self.path, (None, 0))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)
        self.server.served.append(self.path)

    def log_message(self, *arguments: object) -> None:
        pass


class Site:
    """Pages on the loopback: `put` gives the address of one; `length` announces another length than there is."""

    def __init__(self, server: http.server.ThreadingHTTPServer) -> None:
        self.server = server
        self.server.pages, self.server.served = {}, []

    @property
    def served(self) -> list[str]:
        return self.server.served

    def put(self, name: str, content: bytes, length: int | None = None) -> str:
        self.server.pages[f"/{name}"] = (content, len(content) if length is None else length)
        return f"http://127.0.0.1:{self.server.server_port}/{name}"


@contextmanager
def site() -> Iterator[Site]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Site(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
