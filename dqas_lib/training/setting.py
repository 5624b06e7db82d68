"""Setting: what is trained, how, where, and where results are kept. One value in place of five arguments."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from dqas_lib.core.devices import check_device
from dqas_lib.core.store import Store
from dqas_lib.training.networks import NETWORKS, identity
from dqas_lib.training.recipes import Recipe, get_recipe


@dataclass(frozen=True)
class Setting:
    """What every stage needs to know.

    Args:
        network: A name of `NETWORKS`.
        recipe: A name of `RECIPES`, or a `Recipe`.
        device: "cpu", "cuda" (or "cuda:1"), or "auto": CUDA where PyTorch sees it.
        store: Where results are kept and looked for; None keeps nothing.

    Raises:
        InputError: At once, for a network or recipe that is not registered, or a device that is not there.
    """

    network: str = "small_cnn"
    recipe: str | Recipe = "cpu"
    device: str | torch.device = "cpu"
    store: Store | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        NETWORKS[self.network]
        object.__setattr__(self, "recipe", get_recipe(self.recipe))
        object.__setattr__(self, "device", str(check_device(self.device)))

    @property
    def key(self) -> dict[str, Any]:
        """What results depend on, as plain values for store keys and provenance: network, recipe, kind of device."""
        recipe, kind = dataclasses.asdict(get_recipe(self.recipe)), torch.device(self.device).type
        return {"network": identity(self.network), "recipe": recipe, "device": kind}

    def replace(self, **changes: Any) -> "Setting":
        """The same setting with some fields changed."""
        return dataclasses.replace(self, **changes)
