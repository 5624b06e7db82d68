"""Published numbers beside ours: value, source, protocol, and whether the two may be compared.

What is not listed here is not known to us: it is "not published", never a guess. Ratios of the literature are *stored*
ratios (image ratio times share of patches kept); where whole images are kept, as random does, both are the same.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

NOT_PUBLISHED = "not published"


NOT_STATED = "not stated"


BGFDQ_TABLE = "BGFDQ (CVPR 2026), all methods re-run there on one machine"


IMAGE_COUNTS = "by number of whole images; the list this kit was given does not name its table"


PAPER = "DQAS (ECCV 2024)"


@dataclass(frozen=True)
class Accuracy:
    """A published test accuracy in percent.

    method: as registered here ("full": all images); ratio: of the training set; whole_images: nothing but whole images
    is kept, so that the stored ratio is the image ratio; epochs: None where the source states none.
    """

    dataset: str
    method: str
    ratio: float
    value: float
    source: str
    whole_images: bool
    network: str = "resnet18"
    epochs: int | None = None
    note: str = ""

    def compare_with(self, *, network: str, recipe: str, patches_dropped: bool = False) -> str:
        """ "" when a result of ours may be compared with this one, else why not."""
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
    """A published cost. what: of which step; value in `unit`; hardware: None where the source states none."""

    dataset: str
    method: str
    ratio: float
    what: str
    value: float
    unit: str
    hardware: str | None
    source: str


def _row(dataset: str, ratio: float, **values: float) -> tuple[Accuracy, ...]:
    return tuple(
        Accuracy(dataset, method, ratio, value, BGFDQ_TABLE, whole_images=method == "random")
        for method, value in values.items()
    )


def _by_images(images: int, random: float, bins: float) -> tuple[Accuracy, ...]:
    ratio = images / 50_000
    return (
        Accuracy("cifar10", "random", ratio, random, f"{images:,} images: {IMAGE_COUNTS}", whole_images=True),
        Accuracy("cifar10", "bins-random", ratio, bins, f"{images:,} images: {IMAGE_COUNTS}", whole_images=True),
    )


ACCURACIES: tuple[Accuracy, ...] = (
    *_row("cifar10", 0.2, random=87.1, dq=87.6, dqas=90.2, adq=89.3, bgfdq=91.6),
    *_row("cifar100", 0.2, random=60.5, dq=60.4, dqas=61.0, adq=59.1, bgfdq=66.0),
    *_row("cifar100", 0.1, random=52.6, dq=52.9, dqas=52.6, adq=52.7, bgfdq=55.2),
    *_by_images(5_000, random=75.7, bins=75.9),
    *_by_images(10_000, random=87.1, bins=87.0),
    *_by_images(15_000, random=90.2, bins=90.1),
    Accuracy("cifar10", "dq", 0.6, 95.0, "DQ at 60 %, beside 95.6 on all images", whole_images=False),
    Accuracy("cifar10", "full", 1.0, 95.6, "all images, beside DQ at 60 %", whole_images=True),
    *(
        Accuracy(
            "tiny-imagenet", "full", 1.0, value, f"64 px, all images, {epochs} epochs", whole_images=True, epochs=epochs
        )
        for epochs, value in ((50, 59.6), (100, 60.2), (200, 60.5))
    ),
    Accuracy(
        *(NOT_STATED, "dq", 0.1, 84.0, "measured by users of the public DQ code at '10 %'"),
        whole_images=False,
        note="training on the raw images",
    ),
    Accuracy(
        *(NOT_STATED, "dq", 0.1, 73.0, "measured by users of the public DQ code at '10 %'"),
        whole_images=False,
        note="training on the reconstructed images",
    ),
)


RTX = "RTX 4070 SUPER"


COSTS: tuple[Cost, ...] = (
    Cost("cifar10", "dq", 0.2, "bins", 441, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "dq", 0.2, "patches", 806, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "adq", 0.2, "selection", 1640, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "bgfdq", 0.2, "selection", 2465, "s", RTX, BGFDQ_TABLE),
    Cost("cifar10", "dqas", 0.6, "selection", 32.5, "h", None, PAPER),
    Cost("cifar10", "dream", 0.6, "distillation", 46.7, "h", None, PAPER),
    Cost("cifar10", "dc", 0.6, "distillation", 924.2, "h", None, PAPER),
)


LARGEST_CLASS = 200_000  # images a class at which bins run out of memory, as BGFDQ reports


def accuracies(dataset: str, method: str, ratio: float) -> list[Accuracy]:
    """What is published of a method at a ratio; an empty list when nothing is known to us."""
    return [
        entry
        for entry in ACCURACIES
        if (entry.dataset, entry.method) == (dataset, method) and np.isclose(entry.ratio, ratio, rtol=1e-9, atol=0)
    ]


def costs(dataset: str, method: str) -> list[Cost]:
    """What is published of a method's cost on a data set."""
    return [entry for entry in COSTS if (entry.dataset, entry.method) == (dataset, method)]


def beside(summary: pd.DataFrame) -> pd.DataFrame:
    """Our results and the published ones side by side.

    summary: a row a cell, with dataset, method, ratio, network, recipe, mean and half (accuracies in [0, 1]). Gives a
    row for every published number of a cell, or one that says "not published": ours, published, source, and whether
    they are comparable, with the reason if not.
    """
    rows = []
    for cell in summary.itertuples():
        ours = f"{100 * cell.mean:.1f}" + (f" ± {100 * cell.half:.1f}" if np.isfinite(cell.half) else "")
        key = {"dataset": cell.dataset, "method": cell.method, "ratio": cell.ratio, "ours (%)": ours}
        found = accuracies(cell.dataset, cell.method, cell.ratio)
        for entry in found:
            reason = entry.compare_with(network=cell.network, recipe=cell.recipe)
            source = entry.source + (f"; {entry.note}" if entry.note else "")
            comparable = f"no: {reason}" if reason else "yes" + (", epochs there not stated" * (entry.epochs is None))
            rows.append({**key, "published (%)": f"{entry.value:.1f}", "comparable": comparable, "source": source})
        if not found:
            rows.append({**key, "published (%)": NOT_PUBLISHED, "comparable": "-", "source": "-"})
    return pd.DataFrame(rows)
