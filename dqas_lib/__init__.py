"""Dataset Quantization with Active Learning based Adaptive Sampling: an open implementation.

import dqas_lib as dqas
images = dqas.load_images("digits")
subset = dqas.quantize(images.train, ratio=0.1, seed=0)
subset.class_counts, subset.ids
"""

from dqas_lib.compressed.read import CompressedSet, open_compressed
from dqas_lib.core import __version__ as __version__
from dqas_lib.core.devices import default_device
from dqas_lib.core.errors import DataError, DqasError, InputError, RunError
from dqas_lib.core.store import Store
from dqas_lib.data.data_report import DataReport
from dqas_lib.data.export import export_folder
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.data.load import data_report, load_images
from dqas_lib.methods import METHODS
from dqas_lib.methods.base import register
from dqas_lib.patches.autoencoder_training import AUTOENCODERS
from dqas_lib.patches.masks import AdaptiveTheta
from dqas_lib.patches.patchify import Patched
from dqas_lib.quantize import Selection, patchify, quantize
from dqas_lib.training.features import extract, predict
from dqas_lib.training.networks import NETWORKS
from dqas_lib.training.recipes import RECIPES, Recipe
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import TrainingResult, train

__all__ = [
    "AUTOENCODERS",
    "METHODS",
    "NETWORKS",
    "RECIPES",
    "AdaptiveTheta",
    "CompressedSet",
    "DataError",
    "DataReport",
    "DataSet",
    "DqasError",
    "ImageSet",
    "InputError",
    "Patched",
    "Recipe",
    "RunError",
    "Selection",
    "Setting",
    "Store",
    "TrainingResult",
    "data_report",
    "default_device",
    "export_folder",
    "extract",
    "load_images",
    "open_compressed",
    "patchify",
    "predict",
    "quantize",
    "register",
    "train",
]
