"""Setting: what is trained, how, where, and where results are kept. One value in place of five arguments."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from dqas_lib.core.checks import check_fields
from dqas_lib.core.devices import check_device
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.networks import NETWORKS, identity
from dqas_lib.training.recipes import Recipe, get_recipe

SMALL_SIDE = 24  # pixels: a side below which small_cnn is enough


@dataclass(frozen=True)
class Setting:
    """What every stage needs to know.

    Args:
        network: A name of `NETWORKS`, or "auto": what suits the images and the device (`suited_to`).
        recipe: A name of `RECIPES`, a `Recipe`, or "auto".
        device: "cpu", "cuda" (or "cuda:1"), or "auto": CUDA where PyTorch sees it.
        store: Where results are kept and looked for; None keeps nothing.

    Raises:
        InputError: At once, for a network or recipe that is not registered, or a device that is not there.
    """

    network: str = "auto"
    recipe: str | Recipe = "auto"
    device: str | torch.device = "cpu"
    store: Store | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.network != "auto":
            NETWORKS[self.network]
        if self.recipe != "auto":
            object.__setattr__(self, "recipe", get_recipe(self.recipe))
        object.__setattr__(self, "device", str(check_device(self.device)))

    def suited_to(self, images: ImageSet) -> "Setting":
        """This setting with "auto" replaced by the defaults for images of this side, on this kind of device [ours].

        Below 24 px small_cnn and recipe "cpu"; above, resnet9 and "strong" on a CPU, resnet18 and "fast" on a GPU.
        """
        on_cpu = torch.device(self.device).type == "cpu"
        network, recipe = ("resnet9", "strong") if on_cpu else ("resnet18", "fast")
        if images.size < SMALL_SIDE:
            network, recipe = "small_cnn", "cpu"
        return self.replace(
            network=network if self.network == "auto" else self.network,
            recipe=recipe if self.recipe == "auto" else self.recipe,
        )

    @property
    def key(self) -> dict[str, Any]:
        """What results depend on, as plain values for store keys and provenance: network, recipe, kind of device."""
        recipe, kind = dataclasses.asdict(get_recipe(self.recipe)), torch.device(self.device).type
        return {"network": identity(self.network), "recipe": recipe, "device": kind}

    def replace(self, **changes: Any) -> "Setting":
        """The same setting with some fields changed."""
        return dataclasses.replace(self, **changes)
