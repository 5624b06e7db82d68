"""The front door: check the ratio, call the method, check what it gives back."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dqas_lib.budget import check_ratio
from dqas_lib.images import ImageSet
from dqas_lib.methods import Method, get_method, options
from dqas_lib.methods.base import Workbench
from dqas_lib.seeds import check_seed
from dqas_lib.store import Store
from dqas_lib.training import Recipe, check_device, get_recipe


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen images and how they were chosen.

    images: the chosen images, in the order chosen; weights: (B,) loss weights where the method defines them;
    ratio: the image ratio asked for; n_pool: N, the images chosen from; settings: method options, seed, network,
    recipe, device; seconds: by stage; trace: the method's own arrays over the pool, for notebooks.
    """

    images: ImageSet
    ratio: float
    n_pool: int
    settings: Mapping[str, Any]
    weights: np.ndarray | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    trace: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> np.ndarray:
        """(B,) ids of the chosen images, in the order chosen."""
        return self.images.ids

    @property
    def class_counts(self) -> np.ndarray:
        """(C,) number of chosen images of each class."""
        return self.images.class_counts


def quantize(
    images: ImageSet,
    ratio: float,
    *,
    method: str | Method = "dqas",
    seed: int = 0,
    network: str = "small_cnn",
    recipe: str | Recipe = "cpu",
    device: str = "cpu",
    store: Store | None = None,
    progress: bool = False,
) -> Selection:
    """Select round(ratio * N) of the images.

    ratio: image ratio in (0, 1]; method: a registered name, or a method with options such as DQAS(rounds=4);
    seed: of every random draw; network, recipe, device: of the networks the method trains; store: where shared work
    (features, bins) is kept between calls. Equal arguments on the same machine give equal ids.
    Raises InputError for a ratio, method, seed, network, recipe or device that cannot be used.
    """
    budget = check_ratio(ratio, len(images))
    method = get_method(method)
    check_device(device)
    bench = Workbench(
        images,
        seed=check_seed(seed),
        network=network,
        recipe=get_recipe(recipe),
        device=device,
        store=store,
        progress=progress,
    )
    started = time.perf_counter()
    choice = method.choose(bench, budget)
    if len(choice.positions) != budget or len(np.unique(choice.positions)) != budget:
        found = len(np.unique(choice.positions))
        raise RuntimeError(
            f"method {method.name!r} gave {found} distinct positions instead of {budget}: a defect in it"
        )
    return Selection(
        images=images.take(choice.positions),
        ratio=float(ratio),
        n_pool=len(images),
        settings={**bench.settings, "method": options(method)},
        weights=choice.weights,
        seconds={**bench.seconds, "all": time.perf_counter() - started},
        trace=choice.trace,
    )
