"""Shared fixtures. Tests that use real photographs read them from ../shared/data and say so when it is absent."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from places import SHARED_DATA

from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.reproduce.child import leave_out_formats

torch.set_num_threads(1)
leave_out_formats()

# Files of a quarter of a minute and more, the longest first: no worker waits at the end while another runs one of them.
LONGEST = (
    *("test_notebooks.py", "test_reproduce.py", "test_faults.py", "test_explorers.py", "test_quantize_patchify.py"),
    *("test_contract.py", "test_dqas.py", "test_distillation.py", "test_compare.py", "test_autoencoder.py"),
    *("test_survey.py", "test_benchmarks.py", "test_cluster.py", "test_folders.py"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist keep the order below: by itself it begins with the files of most tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    items.sort(key=lambda item: (*LONGEST, item.path.name).index(item.path.name))


@pytest.fixture(scope="session")
def digits() -> DataSet:
    """The embedded digits: 1,201 training and 596 test images of 8 x 8 px."""
    return load_images("digits")


def _unpacked(tmp_path_factory: pytest.TempPathFactory, *arguments: str) -> Path:
    if not (SHARED_DATA / "unpack.py").is_file():
        pytest.skip(f"real images are read from {SHARED_DATA}, which is absent: this test checked nothing")
    folder = tmp_path_factory.mktemp("shared")
    command = [sys.executable, str(SHARED_DATA / "unpack.py"), arguments[0], str(folder), *arguments[1:]]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def cifar10_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared cifar10.npz with the first 500 real training images of each class and all test images."""
    return _unpacked(tmp_path_factory, "cifar10", "--per-class", "500") / "cifar10.npz"


@pytest.fixture(scope="session")
def cifar10(cifar10_path: Path) -> DataSet:
    """CIFAR-10 with 500 real training images a class."""
    return load_images(cifar10_path)


@pytest.fixture(scope="session")
def cifar100_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared cifar100.npz with 50 real training images of each class."""
    return _unpacked(tmp_path_factory, "cifar100", "--per-class", "50") / "cifar100.npz"


@pytest.fixture(scope="session")
def tiny_imagenet_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds tiny-imagenet-200/ in the official layout, 40 training and 10 validation files a class."""
    return _unpacked(tmp_path_factory, "tiny-imagenet")


@pytest.fixture
def blobs() -> ImageSet:
    """60 synthetic 8 x 8 images of three classes that differ in mean color."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    base = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[labels]
    images = np.clip(base[:, None, None] + rng.normal(0, 25, (60, 8, 8, 3)), 0, 255).astype(np.uint8)
    return ImageSet(images, labels, np.arange(60), ("red", "green", "blue"), "blobs")
