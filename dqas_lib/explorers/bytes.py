"""The bytes explorer: how many images, how well each is stored, and what both together cost and reach."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jinja2.filters import do_filesizeformat as in_bytes
from matplotlib.figure import Figure

from dqas_lib.compressed.byte_budget import SAMPLE, StorageLaw, storage_law
from dqas_lib.compressed.codecs import Codec, to_sheet
from dqas_lib.compressed.write import decoded, lossy_sheets
from dqas_lib.data.image_set import ImageSet
from dqas_lib.explorers import frames
from dqas_lib.notebook import plots
from dqas_lib.training.setting import Setting


@dataclass(frozen=True, eq=False)
class BytesExplorer:
    """The pilots of the storage law: a number of images at a quality, its bytes, error and pictures."""

    shown: ImageSet  # M images to look at
    coded: np.ndarray  # (Q, M, H, W, 3) uint8, at each quality
    qualities: tuple[int, ...]  # Q of them, rising
    law: StorageLaw  # its pilots: numbers x qualities, in this order
    codec: str
    name = "bytes"
    size = (7.4, 3.9)
    title = "Fewer images, or smaller ones"
    questions = (
        "At equal bytes, which loses more: a quarter of the images, or images of a quarter of the bytes?",
        "From which quality on do more bytes per image buy nothing?",
        "What do the best images for the fewest bytes look like?",
    )

    @property
    def numbers(self) -> np.ndarray:
        """Numbers of images, rising."""
        return self.law.pilots[:: len(self.qualities), 0].astype(int)

    @property
    def dials(self) -> tuple[frames.Dial, ...]:
        """Number of images; quality."""
        numbers = tuple(f"{n:,}" for n in self.numbers)
        return frames.Dial("images", numbers, len(numbers) - 1), frames.Dial("quality", tuple(map(str, self.qualities)))

    def draw(self, figure: Figure, places: tuple[int, ...]) -> str:
        """See `frames.Explorer`."""
        pilots = self.law.pilots.reshape(len(self.numbers), len(self.qualities), -1)
        n, each, error, seconds = pilots[places]
        grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.3), hspace=0.3, wspace=0.25)
        stored = f"stored: {each:.0f} bytes per image"
        for place, title, pictures in (0, "original", self.shown.images), (1, stored, self.coded[places[1]]):
            axes = figure.add_subplot(grid[place, 0], title=title, anchor="NW")
            axes.set_axis_off()
            axes.imshow(to_sheet(pictures, -(-len(pictures) // 2)), interpolation="nearest")
        axes = figure.add_subplot(grid[:, 1], title="accuracy on validation images (%)")
        for row, color in zip(pilots, plots.OKABE_ITO, strict=False):
            axes.plot(
                row[:, 0] * row[:, 1] / 1e6, 100 * (1 - row[:, 2]), "o-", color=color, label=f"{row[0, 0]:,.0f} images"
            )
        axes.plot(n * each / 1e6, 100 * (1 - error), "o", markersize=11, fillstyle="none", color="black")
        axes.set(xscale="log")
        axes.set_xlabel("MB, all the images", labelpad=1)
        axes.legend(loc="lower right")
        runs, other = self.law.pilots, "no other pilot reaches more with as few bytes"
        best = min(runs[runs[:, 0] * runs[:, 1] <= n * each], key=lambda run: run[2])
        if best[2] < error:
            other = f"{best[0]:,.0f} images at {best[1]:.0f} bytes reach {100 * (1 - best[2]):.1f} % with fewer bytes"
        return (
            f"{n:,.0f} images in {self.codec} at quality {self.qualities[places[1]]} take {in_bytes(n * each)}, "
            f"{each:.0f} bytes per image, and reach {100 * (1 - error):.1f} % in {seconds:.0f} s of training; {other}."
        )


def bytes_explorer(
    images: ImageSet, ids: Sequence, *, codec: Codec, qualities: Sequence[int], setting: Setting, seed: int = 0
) -> BytesExplorer | frames.Missing:
    """The bytes explorer of some images: the pilots of their storage law, trained where the store does not have them.

    Args:
        ids: Of the images to look at.
        codec, qualities, setting, seed: Of the pilots, as in `compressed.byte_budget.storage_law`.
    """

    def make() -> BytesExplorer:
        law, places = storage_law(images, codec, seed, setting, qualities), images.positions(ids)
        # coded together with others, as a sheet of few images costs more for each
        rest = np.setdiff1d(np.arange(min(SAMPLE, len(images))), places)
        together, coded = images.take(np.concatenate([places, rest])), []
        for quality in qualities:
            sheets = lossy_sheets(together, replace(codec, quality=quality))
            coded.append(decoded(together, sheets, None, None).images[: len(places)])
        return BytesExplorer(images.take(places), np.stack(coded), tuple(qualities), law, codec.label.split(",")[0])

    return frames.or_sentence(BytesExplorer, make)
