"""Published numbers beside ours: value, source, protocol, and whether the two may be compared.

What is not listed here is not known to us: a table says "not published", never a guess. Ratios of the literature are
*stored* ratios (image ratio x fraction of patches kept); where whole images are kept, both kinds are the same.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

NOT_PUBLISHED = "not published"
BGFDQ_TABLE = "BGFDQ (CVPR 2026), all methods re-run there on one machine"
BY_IMAGES = "by number of whole images, known second hand"
USERS = "measured by users of the public DQ code at '10 %'"
DQAS_PAPER = "DQAS (ECCV 2024) [summary]"
RTX = "RTX 4070 SUPER"


@dataclass(frozen=True)
class Accuracy:
    """A published test accuracy.

    Args:
        dataset: "not stated" where the source does not say.
        method: As registered here ("full": all images).
        ratio: Of the training set.
        value: In percent.
        source: Who says so.
        whole_images: Nothing but whole images is kept, so that the stored ratio is the image ratio.
        network: As registered here.
        epochs: None where the source states none.
        note: More about the protocol.
    """

    dataset: str
    method: str
    ratio: float
    value: float
    source: str
    whole_images: bool = False
    network: str = "resnet18"
    epochs: int | None = None
    note: str = ""

    def compare_with(self, *, network: str, recipe: str, patches_dropped: bool = False) -> str:
        """Why a result of ours may not be compared with this one; an empty text when it may."""
        reasons = []
        if network != self.network:
            reasons.append(f"network {network}, published {self.network}")
        if recipe != "paper":
            reasons.append(f"recipe {recipe}, not the 200 epochs of 'paper'")
        if self.epochs not in (None, 200):
            reasons.append(f"{self.epochs} epochs there")
        if not self.whole_images and not patches_dropped:
            reasons.append("published at a stored ratio, with patches dropped; ours keeps whole images")
        return "; ".join(reasons)


@dataclass(frozen=True)
class Cost:
    """A published cost, of one step (`what`), in `unit`; hardware: None where the source states none."""

    dataset: str
    method: str
    ratio: float
    what: str
    value: float
    unit: str
    hardware: str | None
    source: str


ACCURACIES: tuple[Accuracy, ...] = (
    *(
        Accuracy(dataset, method, ratio, value, BGFDQ_TABLE, whole_images=method == "random")
        for dataset, ratio, values in (
            ("cifar10", 0.2, {"random": 87.1, "dq": 87.6, "dqas": 90.2, "adq": 89.3, "bgfdq": 91.6}),
            ("cifar100", 0.2, {"random": 60.5, "dq": 60.4, "dqas": 61.0, "adq": 59.1, "bgfdq": 66.0}),
            ("cifar100", 0.1, {"random": 52.6, "dq": 52.9, "dqas": 52.6, "adq": 52.7, "bgfdq": 55.2}),
        )
        for method, value in values.items()
    ),
    *(
        Accuracy("cifar10", method, images / 50_000, value, f"{images:,} images: {BY_IMAGES}", whole_images=True)
        for images, random, bins in ((5_000, 75.7, 75.9), (10_000, 87.1, 87.0), (15_000, 90.2, 90.1))
        for method, value in (("random", random), ("bins-random", bins))
    ),
    Accuracy("cifar10", "dq", 0.6, 95.0, "DQ at 60 %, beside 95.6 on all images"),
    Accuracy("cifar10", "full", 1.0, 95.6, "all images, beside DQ at 60 %", whole_images=True),
    *(
        Accuracy("tiny-imagenet", "full", 1.0, value, f"64 px, all images, {epochs} epochs", True, epochs=epochs)
        for epochs, value in ((50, 59.6), (100, 60.2), (200, 60.5))
    ),
    Accuracy("not stated", "dq", 0.1, 84.0, USERS, note="training on the raw images"),
    Accuracy("not stated", "dq", 0.1, 73.0, USERS, note="training on the reconstructed images"),
)
COSTS: tuple[Cost, ...] = (
    Cost("cifar10", "dq", 0.2, "bins", 441, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "dq", 0.2, "patches", 806, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "adq", 0.2, "selection", 1640, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "bgfdq", 0.2, "selection", 2465, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "dqas", 0.6, "selection", 32.5, "h", None, DQAS_PAPER),
    Cost("cifar10", "dream", 0.6, "distillation", 46.7, "h", None, DQAS_PAPER),
    Cost("cifar10", "dc", 0.6, "distillation", 924.2, "h", None, DQAS_PAPER),
)
LARGEST_CLASS = 200_000  # images per class at which bins run out of memory, as BGFDQ reports


def accuracies(dataset: str, method: str, ratio: float) -> list[Accuracy]:
    """What is published of a method at a ratio; an empty list when nothing is known to us."""
    of_method = [entry for entry in ACCURACIES if (entry.dataset, entry.method) == (dataset, method)]
    return [entry for entry in of_method if np.isclose(entry.ratio, ratio, rtol=1e-9, atol=0)]


def costs(dataset: str, method: str) -> list[Cost]:
    """What is published of a method's cost on a data set."""
    return [entry for entry in COSTS if (entry.dataset, entry.method) == (dataset, method)]


def beside(summary: pd.DataFrame) -> pd.DataFrame:
    """Our results and the published ones side by side.

    Args:
        summary: A row per cell, with dataset, method, ratio, network, recipe, mean and half (accuracies in [0, 1]).

    Returns:
        A row for every published number of a cell, or one that says "not published": ours, published, source, and
        whether they are comparable, with the reason if not.
    """
    rows = []
    for cell in summary.to_dict("records"):
        key = {name: cell[name] for name in ("dataset", "method", "ratio")}
        half = f" ± {100 * cell['half']:.1f}" if np.isfinite(cell["half"]) else ""
        key["ours (%)"] = f"{100 * cell['mean']:.1f}{half}"
        known = accuracies(cell["dataset"], cell["method"], cell["ratio"])
        for entry in known:
            reason = entry.compare_with(network=cell["network"], recipe=cell["recipe"])
            source = entry.source + (f"; {entry.note}" if entry.note else "")
            comparable = f"no: {reason}" if reason else "yes" + (", epochs there not stated" * (entry.epochs is None))
            rows.append({**key, "published (%)": f"{entry.value:.1f}", "comparable": comparable, "source": source})
        if not known:
            rows.append({**key, "published (%)": NOT_PUBLISHED, "comparable": "-", "source": "-"})
    return pd.DataFrame(rows)
