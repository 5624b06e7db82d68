"""TODO."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers.frames import BLUE, ORANGE, Dial, Missing, Question, _sizes, in_bytes, or_sentence, percent
from dqas_lib.explorers.rounds import WENT_FIRST
from dqas_lib.patches.masks import keep_mask, pixel_mask
from dqas_lib.patches.patchify import Patchifier
from dqas_lib.patches.reconstruct import dropped_psnr, reconstruct


@dataclass(frozen=True, eq=False)
class DropExplorer:
    """An image, the importance of its patches, what is kept, what comes back, and bytes, as more patches are dropped.

    images: M images to look at; importance: (M, G), or what else decides which patches go first; thetas: rising shares
    to drop; painted: (T, M, H, W, 3) uint8 at every theta; n_bytes: (T,) bytes an image of the compressed set at every
    theta, masks and labels included, without the autoencoder; coder_bytes: of its weights, stored once a set; rule: by
    which patches go, of `patches.DROPS`.
    Raises DataError when shapes disagree.
    """

    images: ImageSet
    importance: np.ndarray
    thetas: tuple[float, ...]
    painted: np.ndarray
    n_bytes: tuple[float, ...]
    coder_bytes: int = 0
    rule: str = "importance"
    name: str = "drop_share"
    size: tuple[float, float] = (7.4, 3.9)

    title = "What dropping patches costs and saves"
    panels = (
        "Six panels: an image; the importance of its patches; the patches kept, dropped ones gray; the image with "
        "dropped patches painted in; error of the painted pixels and bytes an image, each against the share dropped."
    )

    def __post_init__(self) -> None:
        shape = (len(self.thetas), *self.images.images.shape)
        if self.painted.shape != shape or len(self.importance) != len(self.images) or not len(self.images):
            raise DataError(
                f"{len(self.images)} images at {len(self.thetas)} shares need reconstructions of shape {shape} and as "
                f"many importances; got {self.painted.shape} and {len(self.importance)}: make them again"
            )
        if len(self.n_bytes) != len(self.thetas):
            raise DataError(f"{len(self.thetas)} shares need as many byte counts; got {len(self.n_bytes)}")

    @property
    def dial(self) -> Dial:
        near = int(np.abs(np.array(self.thetas) - 0.25).argmin())
        return Dial("share dropped", tuple(percent(theta) for theta in self.thetas), near)

    @property
    def choices(self) -> tuple[Dial, ...]:
        names, labels = self.images.class_names, self.images.labels
        return (Dial("image", tuple(f"{names[c]} (id {i})" for c, i in zip(labels, self.images.ids, strict=True))),)

    def psnr(self, position: int, image: int | None = None) -> float:
        """dB of the painted pixels of one image, or of all together; infinite when nothing is dropped."""
        where = slice(None) if image is None else slice(image, image + 1)
        kept = keep_mask(self.importance[where], self.thetas[position])
        return dropped_psnr(self.images.images[where], self.painted[position, where], kept)

    def draw(self, figure: Figure, position: int, picks: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        (image,) = picks
        theta = self.thetas[position]
        original = self.images.images[image]
        kept = keep_mask(self.importance[image : image + 1], theta)
        mask = pixel_mask(kept, self.images.size)[0]
        side = round(self.importance.shape[1] ** 0.5)
        grid = figure.add_gridspec(
            2, 4, height_ratios=(1.25, 1), left=0.075, right=0.985, top=0.93, bottom=0.125, hspace=0.38, wspace=0.12
        )
        pictures = (
            ("image", original),
            (self.rule, self.importance[image].reshape(side, side)),
            (f"kept: {kept.sum()} of {kept.size}", np.where(mask[..., None], original, 150)),
            ("what comes back", self.painted[position, image]),
        )
        for place, (title, picture) in enumerate(pictures):
            axes = figure.add_subplot(grid[0, place])
            axes.imshow(picture, interpolation="nearest")
            axes.set(title=title, xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(True)
        low = grid[1, :].subgridspec(1, 2, wspace=0.28)
        ticks = [100 * t for t in self.thetas]
        left, right = figure.add_subplot(low[0, 0]), figure.add_subplot(low[0, 1])
        error = [255 * 10 ** (-self.psnr(p, image) / 20) for p in range(len(ticks))]
        for axes, values, color, title in (
            (left, error, BLUE, "error of painted pixels (root mean square)"),
            (right, self.n_bytes, ORANGE, "bytes an image, masks included"),
        ):
            axes.plot(ticks, values, color=color, marker="o", markersize=3)
            axes.plot(ticks[position], values[position], "o", markersize=10, fillstyle="none", color="black")
            axes.set(title=title, ylim=(0, 1.15 * max(*values, 1)))
            axes.set_xlabel("patches dropped (%)", labelpad=1)
            axes.yaxis.grid(True)
        saved = 1 - self.n_bytes[position] / self.n_bytes[0]
        told = "nothing is dropped" if kept.all() else f"painted pixels are off by {error[position]:.0f} of 255 levels"
        weights = f" The autoencoder adds {in_bytes(self.coder_bytes)} once a set." if self.coder_bytes else ""
        return (
            f"{kept.sum()} of {kept.size} patches are kept; {told}. {self.n_bytes[position]:.0f} bytes an image, "
            f"{100 * saved:.0f} % less than at {percent(self.thetas[0])}.{weights}"
        )

    def questions(self) -> tuple[Question, ...]:
        """See `frames.Explorer`."""
        at, last = self.dial.start, len(self.thetas) - 1
        saved = [100 * (1 - n / self.n_bytes[0]) for n in self.n_bytes]
        worst = [255 * 10 ** (-self.psnr(p) / 20) for p in (at, last)]
        return (
            Question(
                "Which patches go first?",
                f"Those with the lowest {self.rule}: {WENT_FIRST[self.rule]}. The mask keeps its order as the share "
                "grows: what is dropped at a small share is dropped at every larger one.",
            ),
            Question(
                f"Does dropping {percent(self.thetas[at])} of the patches save {percent(self.thetas[at])} of "
                "the bytes?",
                f"It saves {saved[at]:.0f} % here. The least important patches are often plain background, which "
                "compresses well, and masks and labels cost the same at every share.",
            ),
            Question(
                "How does the error of the painted pixels grow?",
                f"Over these {len(self.images)} images it is {worst[0]:.0f} of 255 levels at "
                f"{percent(self.thetas[at])} and "
                f"{worst[1]:.0f} at {percent(self.thetas[last])}. Patches that are dropped late hold more of "
                "the object, "
                "and fewer are left to guess them from.",
            ),
        )


def drop_explorer(
    stage: Patchifier, ids: Sequence, *, thetas: Sequence[float] | None = None, measure_on: int = 400
) -> DropExplorer | Missing:
    """The drop-share explorer of some images (by id).

    stage: a `Patchifier`, whose rule, importance and autoencoder are used; thetas: rising, from 0 (default: every
    sixteenth of the patches up to three quarters); bytes are measured on the first `measure_on` images by id.
    """

    def make() -> DropExplorer:
        shares = tuple(np.arange(13) / 16) if thetas is None else tuple(map(float, thetas))
        if not shares or list(shares) != sorted(set(shares)) or shares[0] != 0:
            raise InputError(f"thetas must rise from 0; got {shares!r}")
        pool = stage.pool
        images, importance = pool.images, stage.score  # what decides which patches go first
        places = images.positions(ids)
        sample = pool.by_id[:measure_on]
        painted, sizes = [], []
        for theta in shares:
            kept = keep_mask(importance, theta)
            painted.append(
                reconstruct(stage.coder, images.images[places], kept[places], device=pool.setting.device)
                if theta
                else images.images[places]
            )
            sizes.append(_sizes(images.take(sample), kept[sample], stage.coder))
        coder = max(size.get("autoencoder.safetensors", 0) for size in sizes)
        n_bytes = [
            sum(n for name, n in size.items() if name not in ("manifest.json", "autoencoder.safetensors")) / len(sample)
            for size in sizes
        ]
        return DropExplorer(
            images.take(places),
            importance[places],
            shares,
            np.stack(painted),
            tuple(n_bytes),
            coder_bytes=coder,
            rule=stage.plan.drop,
        )

    return or_sentence("drop_share", DropExplorer.title, make)
