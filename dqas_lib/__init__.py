"""Dataset Quantization with Active Learning based Adaptive Sampling: an open implementation.

import dqas_lib as dqas
images = dqas.load_images("digits")
subset = dqas.quantize(images.train, ratio=0.1, seed=0)
subset.class_counts, subset.ids
"""

from dqas_lib.autoencoder import AUTOENCODERS
from dqas_lib.compressed import CompressedSet, open_compressed
from dqas_lib.errors import DataError, DqasError, InputError, RunError
from dqas_lib.export import export_folder
from dqas_lib.folders import DataReport
from dqas_lib.images import DataSet, ImageSet, data_report, load_images
from dqas_lib.methods import METHODS
from dqas_lib.networks import NETWORKS
from dqas_lib.patched import Patched, patchify
from dqas_lib.patches import AdaptiveTheta
from dqas_lib.quantize import Selection, quantize
from dqas_lib.store import Store
from dqas_lib.training import RECIPES, Recipe, TrainingResult, default_device, extract, predict, train

__version__ = "0.1.0"

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
    "train",
]
