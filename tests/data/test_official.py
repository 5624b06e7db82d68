"""Official archives, in their official layouts, made from real images and served on the loopback."""

import hashlib
import io
import shutil
import socket
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import cifar10_archive, cifar100_archive, cifar_records, put_official, site, tar_gz, zip_folder
from PIL import Image

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data import official as archives
from dqas_lib.data.image_set import DATA_SETS, DataSet, ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.data.official import CIFAR10, Official, fetch, read_tiny_imagenet


@pytest.fixture
def web():
    with site() as pages:
        yield pages


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def official(monkeypatch: pytest.MonkeyPatch, name: str, url: str, content: bytes, counts: tuple[int, int]) -> None:
    """Put an archive of ours in the place of an official one."""
    put_official(monkeypatch, name, url=url, sha256=sha256(content), counts=counts)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_cifar10_is_downloaded_checked_and_read_byte_for_byte(cifar10, web, tmp_path, monkeypatch, capsys):
    content = cifar10_archive(tmp_path / "made.tar.gz", cifar10.train, cifar10.test).read_bytes()
    counts = len(cifar10.train), len(cifar10.test)
    official(monkeypatch, "cifar10", web.put("cifar-10-binary.tar.gz", content), content, counts)
    found = load_images("cifar10", root=tmp_path / "data")
    assert np.array_equal(found.train.images, cifar10.train.images)
    assert np.array_equal(found.train.labels, cifar10.train.labels)
    assert np.array_equal(found.test.images, cifar10.test.images)
    assert np.array_equal(found.test.labels, cifar10.test.labels)
    assert found.train.class_names == cifar10.train.class_names
    assert found.train.ids.tolist() == list(range(len(cifar10.train)))
    assert "cifar-10-binary.tar.gz" in capsys.readouterr().err  # the progress bar
    assert web.served == ["/cifar-10-binary.tar.gz"]
    again = load_images("cifar10", root=tmp_path / "data")
    assert again.train.fingerprint() == found.train.fingerprint()
    assert web.served == ["/cifar-10-binary.tar.gz"]
    assert leftovers(tmp_path / "data") == ["cifar-10-binary.tar.gz", "cifar10.npz"]


def test_cifar100_has_its_fine_labels(cifar100_path, web, tmp_path, monkeypatch):
    given = load_images(cifar100_path)
    content = cifar100_archive(tmp_path / "made.tar.gz", given.train, given.test).read_bytes()
    url = web.put("cifar-100-binary.tar.gz", content)
    official(monkeypatch, "cifar100", url, content, (len(given.train), len(given.test)))
    found = load_images("cifar100", root=tmp_path / "data", progress=False)
    assert np.array_equal(found.train.images, given.train.images)
    assert np.array_equal(found.train.labels, given.train.labels)
    assert np.array_equal(found.test.labels, given.test.labels)
    assert found.train.class_names == given.train.class_names
    assert found.train.n_classes == 100


@pytest.fixture(scope="module")
def small_tiny_imagenet(tiny_imagenet_root, tmp_path_factory) -> Path:
    """Three classes of Tiny ImageNet, in the official layout, one of their files gray, and an unlabeled test/."""
    source = tiny_imagenet_root / "tiny-imagenet-200"
    folder = tmp_path_factory.mktemp("small") / "tiny-imagenet-200"
    wnids = sorted(path.name for path in (source / "train").iterdir())[:3]
    for wnid in wnids:
        shutil.copytree(source / "train" / wnid, folder / "train" / wnid)
    lines = (source / "val" / "val_annotations.txt").read_text().splitlines()
    kept = [line for line in lines if line.split("\t")[1] in wnids]
    (folder / "val" / "images").mkdir(parents=True)
    for line in kept:
        name = line.split("\t")[0]
        shutil.copy(source / "val" / "images" / name, folder / "val" / "images" / name)
    (folder / "val" / "val_annotations.txt").write_text("\n".join(kept) + "\n")
    (folder / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")
    (folder / "test" / "images").mkdir(parents=True)
    shutil.copy(next((folder / "train" / wnids[0]).rglob("*.JPEG")), folder / "test" / "images" / "test_0.JPEG")
    gray = sorted((folder / "train" / wnids[0]).rglob("*.JPEG"))[0]
    Image.open(gray).convert("L").save(gray, "JPEG")
    return folder


def test_tiny_imagenet_is_read_from_its_zip_and_from_its_folder(small_tiny_imagenet, web, tmp_path, monkeypatch):
    content = zip_folder(tmp_path / "made.zip", small_tiny_imagenet).read_bytes()
    official(monkeypatch, "tiny-imagenet", web.put("tiny-imagenet-200.zip", content), content, (120, 30))
    zipped = load_images("tiny-imagenet", root=tmp_path / "zip", progress=False)
    (tmp_path / "folder").mkdir()
    shutil.copytree(small_tiny_imagenet, tmp_path / "folder" / "tiny-imagenet-200")
    unpacked = load_images("tiny-imagenet", root=tmp_path / "folder", progress=False)
    assert zipped.train.fingerprint() == unpacked.train.fingerprint()
    assert zipped.test.fingerprint() == unpacked.test.fingerprint()
    assert zipped.train.class_counts.tolist() == [40, 40, 40]
    assert zipped.test.class_counts.tolist() == [10, 10, 10]
    for part in (zipped.train, zipped.test):
        for position in range(0, len(part), 17):
            file = small_tiny_imagenet / str(part.ids[position])
            assert np.array_equal(part.images[position], np.asarray(Image.open(file).convert("RGB")))
    wnid_of = dict(
        line.split("\t")[:2] for line in (small_tiny_imagenet / "val/val_annotations.txt").read_text().splitlines()
    )
    names = [zipped.test.class_names[label] for label in zipped.test.labels]
    assert names == [wnid_of[Path(file).name] for file in zipped.test.ids]


def test_a_wrong_checksum_is_kept_aside_and_not_used(web, tmp_path):
    url = web.put("archive.tar.gz", b"not what was promised")
    path = tmp_path / "downloads" / "archive.tar.gz"
    with pytest.raises(DataError, match=r"SHA-256 .* instead of 0000000000000000.*archive\.tar\.gz\.rejected"):
        fetch(url, path, "0" * 64, progress=False)
    assert leftovers(tmp_path) == ["archive.tar.gz.rejected"]
    assert (tmp_path / "downloads" / "archive.tar.gz.rejected").read_bytes() == b"not what was promised"
    right = b"what was promised"
    web.put("archive.tar.gz", right)
    fetch(url, path, sha256(right), progress=False)
    assert path.read_bytes() == right


def test_an_archive_put_there_by_hand_is_checked_too(cifar10, tmp_path, monkeypatch):
    whole = cifar10_archive(
        tmp_path / "made.tar.gz", cifar10.train.take(np.arange(50)), cifar10.test.take(np.arange(9))
    )
    content = whole.read_bytes()
    official(monkeypatch, "cifar10", "http://127.0.0.1:9/cifar-10-binary.tar.gz", content, (50, 9))
    place = tmp_path / "data" / "downloads" / "cifar-10-binary.tar.gz"
    place.parent.mkdir(parents=True)
    place.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="kept aside"):
        load_images("cifar10", root=tmp_path / "data", progress=False)
    assert leftovers(tmp_path / "data") == ["cifar-10-binary.tar.gz.rejected"]
    place.write_bytes(content)
    assert len(load_images("cifar10", root=tmp_path / "data", progress=False).train) == 50


def test_a_broken_off_download_leaves_nothing(web, tmp_path):
    url = web.put("archive.tar.gz", b"x" * 1000, length=5000)
    with pytest.raises(DataError, match="broke off after 1,000 of 5,000 bytes: try again"):
        fetch(url, tmp_path / "downloads" / "archive.tar.gz", "0" * 64, progress=False)
    assert leftovers(tmp_path) == []


def test_a_page_that_is_not_there(web, tmp_path):
    url = web.put("archive.tar.gz", b"x").replace("archive", "other")
    with pytest.raises(DataError, match=r"could not be downloaded from .*Not Found.*put it at .*other\.tar\.gz"):
        fetch(url, tmp_path / "downloads" / "other.tar.gz", "0" * 64, progress=False)
    assert leftovers(tmp_path) == []


def test_a_server_that_sends_without_end_is_left(web, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "DOWNLOAD_BYTES", 1000)
    url = web.put("archive.tar.gz", b"x" * 5000)
    with pytest.raises(DataError, match="sends more than 1,000 bytes"):
        fetch(url, tmp_path / "archive.tar.gz", "0" * 64, progress=False)
    assert leftovers(tmp_path) == []


NAMES = [name for name in DATA_SETS if isinstance(DATA_SETS[name], Official)]


def test_the_known_names():
    assert list(DATA_SETS) == ["digits", "cifar10", "cifar100", "tiny-imagenet"]
    assert sorted(NAMES) == ["cifar10", "cifar100", "tiny-imagenet"]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_network_the_message_says_which_file_to_put_where(name, tmp_path, monkeypatch):
    with socket.socket() as closed:  # a port on which nothing listens
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    filename = DATA_SETS[name].filename
    put_official(monkeypatch, name, url=f"http://127.0.0.1:{port}/{filename}")
    with pytest.raises(DataError) as caught:
        load_images(name, root=tmp_path, progress=False)
    message = caught.value.one_line()
    assert f"put it at {tmp_path / 'downloads' / filename}" in message
    assert "Connection refused" in message
    assert leftovers(tmp_path) == []


def test_a_server_that_talks_nonsense(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(b"\x00\xffnonsense\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataError, match="could not be downloaded"):
            fetch(f"http://127.0.0.1:{server.getsockname()[1]}/a", tmp_path / "a", "0" * 64, progress=False)
        thread.join()


@pytest.fixture
def few(blobs) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    return blobs.with_images(images)


def test_the_official_number_of_images_is_demanded(few, tmp_path):
    archive = cifar10_archive(tmp_path / "made.tar.gz", few, few.take(np.arange(6)))
    with pytest.raises(DataError, match=r"train part holds 184,380 bytes, 60.00 images .* holds 50,000 images"):
        CIFAR10(archive, (50_000, 10_000))
    assert len(CIFAR10(archive, (60, 6))["train_labels"]) == 60


def damaged_cifar(tmp_path: Path, few: ImageSet, change: dict[str, bytes | None]) -> Path:
    members = {f"data_batch_{i}.bin": cifar_records(few.images[:12], few.labels[:12]) for i in range(1, 6)}
    members |= {"test_batch.bin": cifar_records(few.images[:6], few.labels[:6]), "batches.meta.txt": b"a\nb\nc\n"}
    members |= change
    return tar_gz(tmp_path / "made.tar.gz", {f"top/{name}": content for name, content in members.items() if content})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_batch_3.bin": None}, "holds no data_batch_3.bin"),
        ({"batches.meta.txt": None}, "holds no batches.meta.txt"),
        ({"batches.meta.txt": b"a\nb\n"}, "of class 2, but batches.meta.txt names 2 classes"),
        ({"test_batch.bin": b"\x00" * 3073 * 5}, "test part holds 15,365 bytes"),
        ({"test_batch.bin": b"\x00" * 100}, "test part holds 100 bytes, 0.03 images"),
    ],
)
def test_a_cifar_archive_that_is_not_whole(few, tmp_path, change, message):
    few = few.take(np.flatnonzero(few.labels < 9))
    few = replace(few, labels=np.arange(len(few)) % 3)
    with pytest.raises(DataError, match=message):
        CIFAR10(damaged_cifar(tmp_path, few, change), (60, 6))


def edit(folder: Path, tmp_path: Path, change) -> Path:
    copy = tmp_path / "edited" / folder.name
    shutil.copytree(folder, copy)
    change(copy)
    return zip_folder(tmp_path / "edited.zip", copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda top: (top / "wnids.txt").unlink(), "holds no wnids.txt"),
        (lambda top: (top / "val/val_annotations.txt").unlink(), "holds no val/val_annotations.txt"),
        (lambda top: (top / "wnids.txt").write_text("n01\n"), "is not listed in wnids.txt"),
        (lambda top: (top / "val/val_annotations.txt").write_text(""), "30 validation images have no line in"),
        (lambda top: next((top / "val/images").iterdir()).unlink(), "120 training and 29 validation images"),
        (lambda top: sorted(top.rglob("*.JPEG"))[40].write_bytes(b"\xff\xd8\xff"), "1 of 1[25]0 image files cannot be"),
    ],
)
def test_a_tiny_imagenet_archive_that_is_not_whole(small_tiny_imagenet, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read_tiny_imagenet(edit(small_tiny_imagenet, tmp_path, change), (120, 30), progress=False)


def test_nothing_of_an_archive_is_written_outside(few, tmp_path, monkeypatch):
    """Members with paths that climb out, links and devices are never extracted."""
    root = tmp_path / "a" / "b" / "data"
    archive = root / "downloads" / "cifar-10-binary.tar.gz"
    archive.parent.mkdir(parents=True)
    cifar10_archive(archive, replace(few, labels=np.arange(60) % 3), few.take(np.arange(6)))
    with tarfile.open(archive) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../../../evil.txt", "/tmp/dqas-evil.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    put_official(monkeypatch, "cifar10", sha256=sha256(archive.read_bytes()), counts=(60, 6))
    assert len(load_images("cifar10", root=root, progress=False).train) == 60
    assert leftovers(tmp_path) == ["cifar-10-binary.tar.gz", "cifar10.npz"]
    assert not Path("/tmp/dqas-evil.txt").exists()


# ---------------------------------------------------------------------------------------------- one's own


def test_a_data_set_of_ones_own_is_loaded_by_its_name(blobs, tmp_path, monkeypatch):
    monkeypatch.setattr(DATA_SETS, "_items", dict(DATA_SETS._items))
    asked = []

    @DATA_SETS.register
    class Colors:
        name = "colors"

        def load(self, root: Path, progress: bool) -> DataSet:
            asked.append((root, progress))
            return DataSet(self.name, *blobs.hold_out(0.2, seed=0))

    found = load_images("colors", root=tmp_path, progress=False)
    assert (found.name, len(found.train), len(found.test)) == ("colors", 48, 12)
    assert asked == [(tmp_path, False)]
    with pytest.raises(InputError, match="give one of digits, cifar10, cifar100, tiny-imagenet, colors, a prepared"):
        load_images("no such colors", root=tmp_path)
