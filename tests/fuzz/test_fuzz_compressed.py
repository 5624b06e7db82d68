"""Mutated compressed sets through `open_compressed`: files damaged, and manifests rewritten by someone who can sign.

A damaged byte is noticed by a checksum. A manifest whose checksums were made to agree must still end in a set that
keeps its promises or in one of the library's own errors, and read nothing outside its folder.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from mutate import mutated, mutated_value
from test_fuzz_data import check, seeds

from dqas_lib.compressed.manifest import dump
from dqas_lib.compressed.read import CompressedSet, open_compressed
from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import DataError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches import masks as patches
from dqas_lib.patches.autoencoder import MaskedAutoencoder, Shape
from dqas_lib.patches.reconstruct import reconstruct


@pytest.fixture(scope="module")
def originals(digits, tmp_path_factory) -> list[Path]:
    """A compressed set with dropped patches and number ids, and a whole one with text ids."""
    top = tmp_path_factory.mktemp("sets")
    some = digits.train.take(np.arange(12))
    torch.manual_seed(0)
    coder = MaskedAutoencoder(Shape(8, 2, width=16, depth=1, decoder_width=16))
    for part in coder.state_dict().values():
        part.copy_(part.half().float())
    kept = patches.keep_mask(np.random.default_rng(0).random((12, 16)), 0.25)
    painted = some.with_images(reconstruct(coder.eval(), some.images, kept))
    save_compressed(top / "dropped", painted, kept=kept, autoencoder=coder)
    texts = ImageSet(some.images, some.labels, np.array([f"a/{i}.png" for i in range(12)]), some.class_names)
    save_compressed(top / "whole", texts, settings={"seed": 1})
    return [top / "dropped", top / "whole"]


def check_opened(found: object | None, what: str) -> bool:
    if found is None:
        return False
    assert isinstance(found, CompressedSet), what
    images = found.images
    assert len(images.images) == len(images.labels) == len(images.ids) == len(found.kept), what
    assert images.images.dtype == np.uint8, what
    if len(images):
        image, label = found[0]
        assert image.shape == (3, images.size, images.size), what
        assert 0 <= label < images.n_classes, what
    return True


def signed(manifest: dict) -> bytes:
    """The manifest as `save_compressed` would have written it: any attacker can do so."""
    return dump(manifest)


def copy(original: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(original, place)
    return place


@pytest.mark.filterwarnings("error")
def test_mutated_files(originals, tmp_path):
    """Any change of any file is noticed."""
    for seed in seeds("compressed file", 100):
        folder = copy(originals[seed % 2], tmp_path / "set")
        file = sorted(folder.iterdir())[seed // 2 % len(list(folder.iterdir()))]
        content = file.read_bytes()
        changed = mutated(content, seed)
        file.write_bytes(changed)
        what = f"compressed file, seed {seed}: {file.name}"
        opened = check_opened(check(lambda folder=folder: open_compressed(folder), what), what)
        assert opened == (changed == content), what


@pytest.mark.filterwarnings("error")
def test_mutated_files_with_checksums_that_agree(originals, tmp_path):
    opened = 0
    for seed in seeds("signed file", 150):
        folder = copy(originals[seed % 2], tmp_path / "set")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        name = sorted(manifest["files"])[seed // 2 % len(manifest["files"])]
        content = mutated((folder / name).read_bytes(), seed)
        (folder / name).write_bytes(content)
        manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "manifest.json").write_bytes(signed(manifest))
        what = f"signed file, seed {seed}: {name}"
        opened += check_opened(check(lambda folder=folder: open_compressed(folder), what), what)
    assert 0 < opened < 120 * len(originals)


@pytest.mark.filterwarnings("error")
def test_mutated_manifests_with_checksums_that_agree(originals, tmp_path):
    opened = 0
    for seed in seeds("manifest", 300):
        folder = copy(originals[seed % 2], tmp_path / "set")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest = mutated_value({key: value for key, value in manifest.items() if key != "digest"}, seed)
        try:
            content = signed(manifest)
        except (ValueError, TypeError, AttributeError):  # NaN and the like: not even a manifest to sign
            content = json.dumps(manifest).encode(errors="replace")
        (folder / "manifest.json").write_bytes(content)
        what = f"manifest, seed {seed}"
        opened += check_opened(check(lambda folder=folder: open_compressed(folder), what), what)
    assert opened > 10


def test_a_manifest_reads_nothing_outside_its_folder(originals, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    entry = {"bytes": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    os.mkfifo(tmp_path / "pipe")
    for name in ("../secret", str(tmp_path / "secret"), "../pipe", "sub/../../secret", "..", "."):
        folder = copy(originals[1], tmp_path / "set")
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["files"][name] = entry
        (folder / "manifest.json").write_bytes(signed(manifest))
        assert check(lambda folder=folder: open_compressed(folder), name) is None, name


@pytest.mark.parametrize("change", [{"depth": 10**6}, {"width": 65536}, {"size": 65536, "patch_size": 1}, {"heads": 0}])
def test_weights_that_claim_a_network_of_any_size(originals, tmp_path, change):
    """The shape in the weights' header is not believed: nothing large is made of a small file."""
    folder = copy(originals[0], tmp_path / "set")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    name = "autoencoder.safetensors"
    with safetensors.safe_open(folder / name, "pt") as file:
        shape = json.loads(file.metadata()["dqas_autoencoder"]) | change
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content = safetensors.torch.save(tensors, metadata={"dqas_autoencoder": json.dumps(shape)})
    (folder / name).write_bytes(content)
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_bytes(signed(manifest))
    with pytest.raises(DataError, match="holds no autoencoder of this library"):
        open_compressed(folder)


def test_odd_paths(tmp_path):
    for path in ("", "\0", "a" * 5000, str(tmp_path), "/dev/null", "\ud800"):
        assert check(lambda path=path: open_compressed(path), repr(path[:10])) is None
