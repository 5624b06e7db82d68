"""Dataset Quantization with Active Learning based Adaptive Sampling: an open implementation.

The shortest way in:

    import dqas_lib as dqas
    images = dqas.load_images("digits")  # or "cifar10", "cifar100", "tiny-imagenet", a folder
    subset = dqas.quantize(images.train, ratio=0.1, seed=0)
    subset.save("data/digits-10pct")  # reopened by dqas.open_compressed

The map, from the ground up; a floor imports only from those before it:

- core: errors, checks, seeds, files, registries, and the store that keeps every stage's result
- data: `ImageSet`, the official sets, folders of images, validation splits
- training: `Setting`; networks, recipes, `train`, and what a trained network says of images
- patches: stage 1, drop the least important patches and reconstruct them
- bins: stages 2 and 3, GraphCut and the recursive bins of each class
- budget: stage 4, the sensitivity of classes and their counts
- active: stage 5, rounds of active sampling, estimators of the error reduction
- pool: `Pool`, the images a method selects from, and shared work on them
- methods: one registry, `METHODS`; dqas.py is the method, written out stage by stage
- compressed: the folder a selection is saved as
- quantize: `quantize`, the front door: it calls the stages in order
- update, compress: a selection that grows; a folder of one's own in, a folder out
- experiments: `select` and `evaluate`, `compare`, `survey`, statistics, published numbers
- explorers: interactive figures of selections, masks, budgets and rounds
- notebook, reproduce: figures and outputs of notebooks; profiles of runs (both stand on core alone)
"""

# ruff: noqa: F401 - imported for those who use the library

import os
import signal
import sys
from types import ModuleType
from typing import Any

from dqas_lib.core import __version__ as __version__


def _stopped(*_: Any) -> None:
    """Ctrl-C while a command is being imported: one line, where NumPy would make an ImportError of it."""
    os.write(2, b"stopped\n")
    os._exit(130)


def _imported() -> None:
    """A command has imported what it needs: Ctrl-C is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _stopped:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_is_sought = sys.argv[:1] == ["-m"] and {"dqas_lib", "dqas_lib.reproduce"} & {*sys.orig_argv}
_is_command = _is_sought or "".join(sys.argv[:1]).endswith("dqas-reproduce")
if _is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup ignores it: so it stays
    signal.signal(signal.SIGINT, _stopped)

# fmt: off
__all__ = [
    "AUTOENCODERS", "DATA_SETS", "METHODS", "NETWORKS", "RECIPES", "AdaptiveTheta", "CompressedSet", "DataError",
    "DataReport", "DataSet", "DqasError", "ImageSet", "InputError", "Patched", "Recipe", "RunError", "Selection",
    "Setting", "Store", "TrainingResult", "compress_folder", "data_report", "default_device", "export_folder",
    "extract", "load_images", "open_compressed", "patchify", "predict", "quantize", "register", "train", "update",
]
# fmt: on


def _import_public_names() -> None:
    """All at once, as the registries fill while their modules are imported."""
    from dqas_lib.compress import compress_folder
    from dqas_lib.compressed.read import CompressedSet, open_compressed
    from dqas_lib.core.devices import default_device
    from dqas_lib.core.errors import DataError, DqasError, InputError, RunError
    from dqas_lib.core.store import Store
    from dqas_lib.data.data_report import DataReport
    from dqas_lib.data.export import export_folder
    from dqas_lib.data.image_set import DATA_SETS, DataSet, ImageSet
    from dqas_lib.data.load import data_report, load_images
    from dqas_lib.methods import METHODS
    from dqas_lib.methods.base import register
    from dqas_lib.patches.autoencoder_training import AUTOENCODERS
    from dqas_lib.patches.masks import AdaptiveTheta
    from dqas_lib.patches.patchify import Patched
    from dqas_lib.quantize import Selection, patchify, quantize
    from dqas_lib.training.checked import extract, predict, train
    from dqas_lib.training.networks import NETWORKS
    from dqas_lib.training.recipes import RECIPES, Recipe
    from dqas_lib.training.setting import Setting
    from dqas_lib.training.train import TrainingResult
    from dqas_lib.update import update

    globals().update(locals())


class _Library(ModuleType):
    """The package, which imports its public names when it is asked for the first of them: PyTorch takes seconds."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _import_public_names()
        return globals()[name]

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep what is set, but no module in place of the function of its name, when that is imported."""
        if name not in ("quantize", "update") or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Library
