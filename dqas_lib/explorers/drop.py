"""The drop explorer: what dropping patches costs and saves."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2.filters import do_filesizeformat as in_bytes
from matplotlib.figure import Figure

from dqas_lib.compressed.write import save_compressed
from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers import frames
from dqas_lib.explorers.frames import percent
from dqas_lib.patches.autoencoder import Autoencoder
from dqas_lib.patches.masks import keep_mask, pixel_mask
from dqas_lib.patches.patchify import Patchifier
from dqas_lib.patches.reconstruct import dropped_psnr, reconstruct


@dataclass(frozen=True, eq=False)
class DropExplorer:
    """An image, which patches go first, what comes back, and bytes."""

    images: ImageSet  # M images to look at
    importance: np.ndarray  # (M, G), or what else decides
    thetas: tuple[float, ...]  # T rising fractions to drop
    reconstructed: np.ndarray  # (T, M, H, W, 3) uint8
    n_bytes: tuple[float, ...]  # (T,) per image of the compressed set, masks and labels included, without autoencoder
    coder_bytes: int = 0  # of the autoencoder's weights, stored once per set
    rule: str = "importance"  # by which patches go, of `DROPS`
    name = "drop_share"
    size = (7.4, 3.9)
    title = "What dropping patches costs and saves"
    questions = (
        "Which patches go first?",
        "Does dropping a quarter of the patches save a quarter of the bytes?",
        "How does the error of the reconstructed pixels grow?",
    )

    @property
    def dials(self) -> tuple[frames.Dial, ...]:
        """Fraction dropped; image."""
        near = int(np.abs(np.array(self.thetas) - 0.25).argmin())
        images = zip(self.images.labels, self.images.ids, strict=True)
        names = tuple(f"{self.images.class_names[label]} (id {i})" for label, i in images)
        return frames.Dial("fraction dropped", tuple(map(percent, self.thetas)), near), frames.Dial("image", names)

    def error(self, place: int, image: int | slice = slice(None)) -> float:
        """Root mean square error of the reconstructed pixels of an image, or of all together, in levels of 255."""
        where = image if isinstance(image, slice) else [image]
        kept = keep_mask(self.importance[where], self.thetas[place])
        psnr = dropped_psnr(self.images.images[where], self.reconstructed[place, where], kept)
        return float(255 * 10 ** (-psnr / 20))

    def draw(self, figure: Figure, places: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        at, image = places
        original, kept = self.images.images[image], keep_mask(self.importance[[image]], self.thetas[at])
        side, shown = round(kept.size**0.5), pixel_mask(kept, self.images.size)[0, ..., None]
        grid = figure.add_gridspec(2, 1, height_ratios=(1.25, 1), hspace=0.38)
        upper, lower = grid[0].subgridspec(1, 4, wspace=0.12), grid[1].subgridspec(1, 2, wspace=0.28)
        pictures = {
            "image": original,
            self.rule: self.importance[image].reshape(side, side),
            f"kept: {kept.sum()} of {kept.size}": np.where(shown, original, 150),
            "what comes back": self.reconstructed[at, image],
        }
        for place, (title, picture) in enumerate(pictures.items()):
            figure.add_subplot(upper[place], title=title, xticks=[], yticks=[]).imshow(picture, interpolation="nearest")
        percents, errors = [100 * t for t in self.thetas], [self.error(t, image) for t in range(len(self.thetas))]
        curves = {"error of reconstructed pixels (rms)": errors, "bytes per image, masks included": self.n_bytes}
        for place, (title, values) in enumerate(curves.items()):
            axes = figure.add_subplot(lower[place], title=title, ylim=(0, 1.15 * max(*values, 1)))
            axes.plot(percents, values, color=frames.BLUE, marker="o", markersize=3)
            axes.plot(percents[at], values[at], "o", markersize=10, fillstyle="none", color="black")
            axes.set_xlabel("patches dropped (%)", labelpad=1)
        off = "nothing is dropped" if kept.all() else f"reconstructed pixels are off by {errors[at]:.0f} of 255 levels"
        weights = f" The autoencoder adds {in_bytes(self.coder_bytes)} once per set." if self.coder_bytes else ""
        return (
            f"{kept.sum()} of {kept.size} patches are kept; {off}. {self.n_bytes[at]:.0f} bytes per image, "
            f"{self._saved(at):.0f} % less than at {percent(self.thetas[0])}.{weights}"
        )

    def _saved(self, place: int) -> float:
        """Per cent of the bytes."""
        return 100 * (1 - self.n_bytes[place] / self.n_bytes[0])


def file_sizes(images: ImageSet, kept: np.ndarray | None = None, coder: Autoencoder | None = None) -> dict[str, int]:
    """File -> bytes of these images as a compressed set."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_compressed(Path(folder) / "set", images, kept=kept, autoencoder=coder)
        return {file.name: file.stat().st_size for file in path.iterdir()}


def drop_explorer(
    stage: Patchifier, ids: Sequence, *, thetas: Sequence[float] | None = None, measure_on: int = 400
) -> DropExplorer | frames.Missing:
    """The drop explorer of some images.

    Args:
        stage: Whose rule, importance and autoencoder are used.
        ids: Of the images to look at.
        thetas: Rising, from 0 (default: every sixteenth of the patches up to three quarters).
        measure_on: How many images, the first by id, bytes are measured on.
    """

    def make() -> DropExplorer:
        steps = tuple(map(float, np.arange(13) / 16 if thetas is None else thetas))
        if not steps or list(steps) != sorted(set(steps)) or steps[0] != 0:
            raise InputError(f"thetas must rise from 0; got {steps!r}")
        images, importance, coder = stage.pool.images, stage.score, stage.coder
        places, sample = images.positions(ids), stage.pool.by_id[:measure_on]
        shown, reconstructed, n_bytes, coder_bytes = images.take(places), [], [], 0
        for theta in steps:
            kept, device = keep_mask(importance, theta), stage.pool.setting.device
            back = reconstruct(coder, shown.images, kept[places], device=device) if theta else shown.images
            reconstructed.append(back)
            sizes = file_sizes(images.take(sample), kept[sample], coder)
            coder_bytes = max(coder_bytes, sizes.pop("autoencoder.safetensors", 0))
            n_bytes.append((sum(sizes.values()) - sizes["manifest.json"]) / len(sample))
        pixels, rule = np.stack(reconstructed), stage.plan.drop
        return DropExplorer(shown, importance[places], steps, pixels, tuple(n_bytes), coder_bytes, rule)

    return frames.or_sentence(DropExplorer, make)
