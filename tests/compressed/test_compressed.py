"""The compressed folder: what comes back, what a changed byte does, what an interrupted save leaves."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from torch.utils.data import DataLoader

from dqas_lib import open_compressed
from dqas_lib.compressed import codecs, read
from dqas_lib.compressed import write as compressed
from dqas_lib.compressed.codecs import CODECS, Codec, coded
from dqas_lib.compressed.manifest import dump
from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import npy_bytes
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches import masks as patches
from dqas_lib.patches.autoencoder import MaskedAutoencoder, PretrainedAutoencoder, Shape
from dqas_lib.patches.reconstruct import reconstruct


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    model = MaskedAutoencoder(Shape(8, 2, width=16, depth=1, decoder_width=16))
    torch.nn.init.normal_(model.head.weight, std=0.1)
    for part in model.state_dict().values():
        part.copy_(part.half().float())
    return model.eval()


@pytest.fixture(scope="module")
def reduced(digits, autoencoder):
    """(images with patches painted in, masks) of 100 digits at theta 25 %."""
    some = digits.train.take(np.arange(100, 200))
    kept = patches.keep_mask(np.random.default_rng(0).random((100, 16)), 0.25)
    return some.with_images(reconstruct(autoencoder, some.images, kept)), kept


@pytest.fixture
def folder(tmp_path, reduced, autoencoder):
    images, kept = reduced
    return save_compressed(tmp_path / "set", images, kept=kept, autoencoder=autoencoder, settings={"seed": 3})


FILES = ["autoencoder.safetensors", "ids.npy", "labels.npy", "manifest.json", "masks.npy", "patches-000.webp"]


class TestRoundTrip:
    def test_everything_comes_back(self, folder, reduced):
        images, kept = reduced
        opened = open_compressed(folder)
        assert opened.reproduced
        assert np.array_equal(opened.images.images, images.images)
        assert np.array_equal(opened.images.labels, images.labels)
        assert np.array_equal(opened.images.ids, images.ids)
        assert opened.images.ids.dtype == images.ids.dtype
        assert np.array_equal(opened.kept, kept)
        assert opened.images.class_names == images.class_names
        assert (opened.images.name, opened.images.mirror) == ("digits", False)
        assert opened.manifest["settings"] == {"seed": 3}
        assert opened.manifest["kept_patches"] == 1200

    def test_is_a_torch_dataset(self, folder, reduced):
        opened = open_compressed(folder)
        assert isinstance(opened, torch.utils.data.Dataset)
        assert len(opened) == 100
        image, label = opened[7]
        assert image.shape == (3, 8, 8)
        assert image.dtype == torch.float32
        assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), reduced[0].images[7])
        assert label == reduced[0].labels[7]
        batches = list(DataLoader(opened, batch_size=32))
        assert sum(len(labels) for _, labels in batches) == 100
        assert torch.equal(batches[0][1], torch.from_numpy(reduced[0].labels[:32]))
        halved = open_compressed(folder, transform=lambda x: x / 2)
        assert torch.equal(halved[7][0], image / 2)

    def test_bytes_are_those_on_disk(self, folder):
        opened = open_compressed(folder)
        on_disk = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
        assert opened.sizes == on_disk
        assert sorted(on_disk) == FILES
        assert opened.total_bytes == sum(on_disk.values())

    def test_dropped_patches_are_not_in_the_folder(self, folder, reduced):
        """The sheet shows them black, whatever they were; nothing else in the folder holds pixels."""
        with Image.open(folder / "patches-000.webp") as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
        images, kept = reduced
        known = patches.pixel_mask(kept, 8)
        columns = pixels.shape[1] // 8
        for i in range(100):
            row, column = divmod(i, columns)
            found = pixels[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            assert (found[~known[i]] == 0).all()
            assert np.array_equal(found[known[i]], images.images[i][known[i]])

    def test_nothing_dropped_needs_no_autoencoder(self, tmp_path, blobs):
        opened = open_compressed(save_compressed(tmp_path / "whole", blobs))
        assert opened.autoencoder is None
        assert "autoencoder.safetensors" not in opened.sizes
        assert np.array_equal(opened.images.images, blobs.images)
        assert opened.kept.all()

    def test_text_ids_and_odd_names(self, tmp_path):
        rng = np.random.default_rng(0)
        ids = np.array(["a/ü 1.png", 'b/"x"\n.png', "c/3.png"])
        names = ("cat", "naïve, \n", "")
        images = ImageSet(rng.integers(0, 256, (3, 7, 7, 3), dtype=np.uint8), np.array([0, 2, 1]), ids, names, "own")
        opened = open_compressed(save_compressed(tmp_path / "x", images))
        assert opened.images.ids.tolist() == ids.tolist()
        assert opened.images.class_names == names
        assert np.array_equal(opened.images.images, images.images)

    def test_many_sheets(self, tmp_path, monkeypatch, digits):
        monkeypatch.setattr(codecs, "SHEET_PIXELS", 40 * 40)
        some = digits.train.take(np.arange(63))
        folder = save_compressed(tmp_path / "sheets", some)
        assert len(list(folder.glob("patches-*.webp"))) == 3
        assert np.array_equal(open_compressed(folder).images.images, some.images)

    def test_large_and_negative_ids(self, tmp_path, blobs):
        for ids in (np.arange(60) * 10**15, np.arange(60) - 30):
            images = ImageSet(blobs.images, blobs.labels, ids, blobs.class_names)
            folder = save_compressed(tmp_path / str(ids[1]), images)
            assert np.array_equal(open_compressed(folder).images.ids, ids)

    def test_a_set_without_images(self, tmp_path, blobs):
        opened = open_compressed(save_compressed(tmp_path / "none", blobs.take(np.arange(0))))
        assert len(opened) == 0
        assert opened.images.images.shape == (0, 8, 8, 3)


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("place", [0.0, 0.35, 0.999])
    def test_a_changed_byte_names_the_file(self, folder, name, place):
        content = bytearray((folder / name).read_bytes())
        content[int(place * len(content))] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} .*(damaged|not the manifest)"):
            open_compressed(folder)

    def test_every_byte_of_the_manifest_counts(self, folder):
        content = (folder / "manifest.json").read_bytes()
        for place in range(len(content)):
            spoiled = bytearray(content)
            spoiled[place] = 0x39 if content[place] in b" \n" or chr(content[place]).isdigit() else 0x20
            if bytes(spoiled) == content:
                continue
            (folder / "manifest.json").write_bytes(spoiled)
            with pytest.raises(DataError, match=r"manifest\.json"):
                open_compressed(folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file_is_named(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(DataError, match=f"{name}.* is missing"):
            open_compressed(folder)

    @pytest.mark.parametrize("name", FILES)
    def test_a_shortened_file_is_named(self, folder, name):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-1])
        with pytest.raises(DataError, match=f"{name} .*damaged"):
            open_compressed(folder)

    def test_a_newer_version(self, folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["version"] = 3
        (folder / "manifest.json").write_bytes(dump(manifest))
        with pytest.raises(DataError, match=r"format version 3, this library reads up to 2: update the library"):
            open_compressed(folder)

    @pytest.mark.parametrize("version", [0, -1, "1", True, None, 1.0])
    def test_a_version_that_never_was(self, folder, version):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_bytes(dump({**manifest, "version": version}))
        with pytest.raises(DataError, match=r"manifest\.json is damaged"):
            open_compressed(folder)

    def test_sizes_are_compared_before_a_file_is_read(self, folder, monkeypatch):
        """Files of 100 GB (with holes, so that they take no room) are refused at once."""
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
            os.truncate(folder / "manifest.json", 100 * 10**9)
            with pytest.raises(DataError, match=r"manifest\.json is damaged \(100,000,000,000 bytes in place of"):
                open_compressed(folder)
        shutil.rmtree(folder)
        save_compressed(folder, ImageSet(np.zeros((2, 8, 8, 3), np.uint8), [0, 1], [0, 1], ("a", "b")))
        size = (folder / "masks.npy").stat().st_size
        os.truncate(folder / "masks.npy", 100 * 10**9)
        with pytest.raises(DataError, match=rf"masks\.npy is damaged \(100,000,000,000 bytes in place of {size}\)"):
            open_compressed(folder)

    def test_a_manifest_chooses_no_model(self, folder, autoencoder, monkeypatch):
        """It names one; it is loaded only by the one who opens the set."""
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["autoencoder"] = {"kind": "pretrained", "source": "evil/model", "size": 8, "patch_size": 2}
        (folder / "manifest.json").write_bytes(dump(manifest))
        monkeypatch.setattr(PretrainedAutoencoder, "__init__", lambda *a, **k: pytest.fail("a model was loaded"))
        with pytest.raises(DataError, match=r"if you trust it, give autoencoder=PretrainedAutoencoder\('evil/model', "):
            open_compressed(folder)
        assert open_compressed(folder, autoencoder=autoencoder).reproduced

    @pytest.mark.parametrize(
        "change",
        [
            {"class_names": ["a"]}, {"class_names": [1, 2]}, {"class_names": ["a"] * 10}, {"patch_size": 3},
            {"autoencoder": None}, {"autoencoder": {}}, {"images": 10**9}, {"size": 10**9}, {"images": 0},
        ],
    )  # fmt: skip
    def test_a_signed_manifest_without_sense_is_a_data_error(self, folder, change):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_bytes(dump({**manifest, **change}))
        with pytest.raises(DataError):
            open_compressed(folder)

    def test_a_device_that_is_none(self, folder):
        for device in ("mps", "meta", "gpu", 3.5, None):
            with pytest.raises(InputError, match="unknown device"):
                open_compressed(folder, device=device)

    def test_a_consistent_manifest_of_wrong_content(self, folder):
        """Checksums can be right and the content wrong all the same: still one clear sentence."""
        manifest = json.loads((folder / "manifest.json").read_text())

        def write(name, content):
            (folder / name).write_bytes(content)
            changed = json.loads(json.dumps(manifest))
            changed["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            (folder / "manifest.json").write_bytes(dump(changed))

        masks = (folder / "masks.npy").read_bytes()
        write("masks.npy", npy_bytes(np.zeros((99, 2), dtype=np.uint8)))
        with pytest.raises(DataError, match="do not fit the 100 images"):
            open_compressed(folder)
        (folder / "masks.npy").write_bytes(masks)
        write("labels.npy", b"no array")
        with pytest.raises(DataError, match=r"labels\.npy is no array"):
            open_compressed(folder)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match=r"manifest\.json is missing"):
            open_compressed(tmp_path / "absent")
        (tmp_path / "manifest.json").write_text('{"format": "other", "version": 1}')
        with pytest.raises(DataError, match="not the manifest of a compressed set"):
            open_compressed(tmp_path)


class TestSaving:
    def test_an_existing_path_is_not_overwritten_unasked(self, folder, tmp_path, reduced, autoencoder, blobs):
        images, kept = reduced
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(InputError, match="exists already: give another path"):
            save_compressed(folder, images, kept=kept, autoencoder=autoencoder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        save_compressed(folder, blobs, overwrite=True)
        assert open_compressed(folder).images.name == "blobs"
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(InputError, match="is no compressed set"):
            save_compressed(tmp_path / "mine", blobs, overwrite=True)
        assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"

    @pytest.mark.parametrize("foreign", ["letter.txt", ".hidden", "sub", "ids.json"])
    def test_a_set_with_files_of_ones_own_is_not_overwritten(self, folder, blobs, foreign):
        (folder / foreign).mkdir() if foreign == "sub" else (folder / foreign).write_text("dear")
        before = sorted(folder.iterdir())
        with pytest.raises(InputError, match=rf"also holds '{foreign}', which would be lost: move it away, or give"):
            save_compressed(folder, blobs, overwrite=True)
        assert sorted(folder.iterdir()) == before

    def test_a_file_that_comes_while_a_set_is_saved_is_not_lost(self, folder, blobs, monkeypatch):
        write = compressed.write_atomically

        def and_a_letter(path, content):
            (folder / "letter.txt").write_text("dear")
            write(path, content)

        monkeypatch.setattr(compressed, "write_atomically", and_a_letter)
        with pytest.raises(InputError, match=r"also holds 'letter\.txt'"):
            save_compressed(folder, blobs, overwrite=True)
        assert (folder / "letter.txt").read_text() == "dear"
        assert os.listdir(folder.parent) == ["set"]

    @pytest.mark.parametrize("manifest", ["{}", '{"format": "other", "files": {}}', "[]", "", '{"format": 3'])
    def test_a_folder_with_another_manifest_is_not_overwritten(self, tmp_path, blobs, manifest):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "manifest.json").write_text(manifest)
        with pytest.raises(InputError, match="mine is no compressed set: give another path"):
            save_compressed(tmp_path / "mine", blobs, overwrite=True)
        assert (tmp_path / "mine" / "manifest.json").read_text() == manifest

    def test_a_link_or_a_file_is_not_overwritten(self, folder, tmp_path, blobs):
        (tmp_path / "link").symlink_to(folder)
        (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
        (tmp_path / "file").write_text("dear")
        for name in ("link", "broken", "file"):
            with pytest.raises(InputError, match="is no compressed set: give another path"):
                save_compressed(tmp_path / name, blobs, overwrite=True)
        assert open_compressed(tmp_path / "link").reproduced

    @pytest.mark.parametrize(("path", "images"), [(None, "blobs"), (3, "blobs"), ("a\0b", "blobs"), ("x", "array")])
    def test_arguments_of_another_kind(self, tmp_path, monkeypatch, blobs, path, images):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match=r"must be a text or|is no path|images must be ImageSet; got"):
            save_compressed(path, blobs if images == "blobs" else blobs.images)
        with pytest.raises((InputError, DataError)):
            open_compressed(path)
        assert os.listdir(tmp_path) == []

    def test_an_interrupted_save_leaves_nothing(self, folder, tmp_path, reduced, autoencoder, monkeypatch):
        images, kept = reduced
        write = compressed.write_atomically

        def full_disk(path, content):
            if path.name.startswith("labels"):
                raise OSError("no space left on device")
            write(path, content)

        monkeypatch.setattr(compressed, "write_atomically", full_disk)
        with pytest.raises(DataError, match=r"cannot be written .no space left on device"):
            save_compressed(tmp_path / "new", images, kept=kept, autoencoder=autoencoder)
        with pytest.raises(DataError, match=r"cannot be written .no space left on device"):
            save_compressed(folder, images, kept=kept, autoencoder=autoencoder, overwrite=True)
        assert [entry.name for entry in os.scandir(tmp_path)] == ["set"]
        assert open_compressed(folder).reproduced

    def test_equal_sets_give_equal_files(self, folder, tmp_path, reduced, autoencoder):
        images, kept = reduced
        other = save_compressed(tmp_path / "b", images, kept=kept, autoencoder=autoencoder, settings={"seed": 3})
        for name in FILES:
            assert (folder / name).read_bytes() == (other / name).read_bytes()
        shutil.rmtree(other)

    def test_refuses_what_does_not_fit(self, tmp_path, reduced, autoencoder, digits):
        images, kept = reduced
        with pytest.raises(InputError, match="no autoencoder was given"):
            save_compressed(tmp_path / "x", images, kept=kept)
        with pytest.raises(InputError, match=r"must be \(N, G\); got \(100, 15\)"):
            save_compressed(tmp_path / "x", images, kept=kept[:, :15], autoencoder=autoencoder)
        large = ImageSet(np.zeros((2, 16, 16, 3), np.uint8), np.zeros(2, np.int64), np.arange(2), ("a",))
        with pytest.raises(InputError, match="made for images of 8 px, these have 16 px"):
            save_compressed(tmp_path / "x", large, kept=kept[:2], autoencoder=autoencoder)
        with pytest.raises(InputError, match="autoencoder's patches have 2 px, not 4"):
            save_compressed(tmp_path / "x", images, kept=kept[:, :4], autoencoder=autoencoder)
        assert not (tmp_path / "x").exists()


class TestCodecs:
    @pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.label)
    def test_bytes_and_pixels_are_those_of_files(self, tmp_path, digits, codec):
        some = digits.train.take(np.arange(5))
        decoded, total = coded(some, codec)
        on_disk = 0
        for i, image in enumerate(some.images):
            path = tmp_path / f"{i}.{codec.format.lower()}"
            path.write_bytes(codec.encode(image))
            on_disk += path.stat().st_size
            with Image.open(path) as file:
                assert np.array_equal(np.asarray(file.convert("RGB")), decoded.images[i])
        assert total == on_disk
        assert np.array_equal(decoded.images, some.images) == (codec.quality is None)
        assert np.array_equal(decoded.ids, some.ids)

    def test_lossless_jpeg_is_refused(self, blobs):
        with pytest.raises(InputError, match="JPEG is not lossless: give a quality"):
            coded(blobs, Codec("JPEG"))


class TestLossy:
    CODECS = (Codec("WEBP", 60), Codec("JPEG", 60), Codec("WEBP", 80, side=6))

    @pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.label)
    def test_a_set_comes_back_in_its_order(self, tmp_path, digits, codec, monkeypatch):
        some = digits.train.take(np.arange(75))
        monkeypatch.setattr(compressed, "LOSSY_COLUMNS", 5)
        monkeypatch.setattr(read, "LOSSY_COLUMNS", 5)
        folder = save_compressed(tmp_path / "set", some, codec=codec)
        opened = open_compressed(folder)
        assert len(list(folder.glob("patches-*"))) == 3
        assert opened.reproduced
        assert opened.images.ids.tolist() == some.ids.tolist()
        error = (opened.images.images.astype(float) - some.images).reshape(75, -1)
        assert 0 < np.square(error).mean() < np.square(some.images - some.images.mean(0)).mean() / 2
        assert opened.total_bytes == sum(entry.stat().st_size for entry in folder.iterdir())

    @pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
    @pytest.mark.parametrize("chroma", ["4:2:0", "4:4:4"])
    def test_avif(self, tmp_path, digits, chroma):
        some = digits.train.take(np.arange(40))
        codec = Codec("AVIF", 60, effort=20, chroma=chroma)
        assert open_compressed(save_compressed(tmp_path / "set", some, codec=codec)).reproduced

    def test_kept_patches_are_coded_and_the_others_reconstructed_from_them(self, tmp_path, reduced, autoencoder):
        images, kept = reduced
        codec = Codec("WEBP", 60)
        folder = save_compressed(tmp_path / "set", images, kept=kept, autoencoder=autoencoder, codec=codec)
        opened = open_compressed(folder)
        assert opened.reproduced
        assert np.array_equal(opened.kept, kept)
        assert not np.array_equal(opened.images.images, images.images)

    def test_a_decoder_with_other_pixels_is_said(self, tmp_path, digits, monkeypatch):
        folder = save_compressed(tmp_path / "set", digits.train.take(np.arange(30)), codec=Codec("WEBP", 60))
        decode = Codec.decode
        monkeypatch.setattr(Codec, "decode", lambda *given: decode(*given) ^ 1)
        with pytest.warns(UserWarning, match=r"patches-000\.webp decode to other pixels here .*WEBP"):
            opened = open_compressed(folder)
        assert not opened.reproduced

    @pytest.mark.parametrize(
        ("format", "options", "message"),
        [
            ("WEBP", {"quality": 101}, "quality of WEBP must be a whole number from 0 to 100; got 101"),
            ("JPEG", {"quality": 96}, "from 0 to 95"),
            ("WEBP", {"quality": 2.5}, "whole number"),
            ("WEBP", {"quality": 50, "chroma": "4:4:4"}, "WebP codes color at half"),
            ("AVIF", {}, "AVIF is not lossless"),
            ("GIF", {}, "format is one of WEBP, AVIF, JPEG, PNG; got 'GIF'"),
        ],
    )
    def test_what_cannot_be_coded_is_refused(self, format, options, message):
        with pytest.raises(InputError, match=message):
            Codec(format, **options)

    def test_without_avif_webp_is_used_and_said(self, monkeypatch):
        monkeypatch.setitem(codecs.LOSSY, "avif", None)
        with pytest.warns(UserWarning, match="no AVIF: WebP codes"):
            assert codecs.lossy_codec().format == "WEBP"
