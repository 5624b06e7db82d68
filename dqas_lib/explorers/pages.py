"""Explorers as pages of their own: self-contained HTML with a plain range input, for readers without a kernel.

    python -m dqas_lib.explorers.pages    # the explorers of the digits, into reports/explorers/
    python -m dqas_lib.explorers.pages --dataset cifar10 --methods dqas-plus random --ratios 0.05 0.1 --seeds 0 1 2

The second writes the ratio explorer of trainings that notebook 06 has left in the store.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dqas_lib.budget.sensitivity import fit_curves
from dqas_lib.core.errors import DataError, DqasError
from dqas_lib.core.files import write_atomically
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet
from dqas_lib.data.load import load_images
from dqas_lib.experiments.compare import compare
from dqas_lib.explorers.class_budget import budget_explorer
from dqas_lib.explorers.drop import drop_explorer
from dqas_lib.explorers.frames import TEMPLATES, Explorer, Frame, Missing, draw_frames, starts
from dqas_lib.explorers.ratio import ratio_explorer
from dqas_lib.explorers.rounds import rounds_explorer
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.setting import Setting

LARGEST_BYTES = 2_000_000


def write_page(explorer: Explorer | Missing, folder: Path, suffix: str = "") -> Path:
    """Write `<folder>/<name><suffix>.html`, and the same .png as it starts; gives the page's path.

    All pictures are in the page, and a policy in its head forbids it any connection. It holds the frames of the slider
    and, as far as they fit in LARGEST_BYTES, those of the first free choice.

    Raises:
        DataError: When the slider's own frames do not fit.
    """
    path, template = folder / f"{explorer.name}{suffix}.html", TEMPLATES.get_template("page.html")

    def page(sets: list[tuple[Frame, ...]], begin: int) -> bytes:
        data = [[{"source": f.source, "alt": f.alt, "caption": f.caption} for f in frames] for frames in sets]
        return template.render(explorer=explorer, sets=sets, data=data, begin=begin).encode()

    if isinstance(explorer, Missing):
        write_atomically(path, page([], 0))
        return path
    (start, *picks), own = starts(explorer), draw_frames(explorer)
    content, places = page([own], 0), range(len(explorer.dials[1].texts) if picks else 0)
    if sum(len(frame.source) for frame in own) * len(places) <= LARGEST_BYTES and len(places) > 1:
        sets = [own if place == picks[0] else draw_frames(explorer, (place, *picks[1:])) for place in places]
        whole = page(sets, picks[0])
        content = whole if len(whole) <= LARGEST_BYTES else content
    if len(content) > LARGEST_BYTES:
        raise DataError(f"the page of explorer {explorer.name!r} has {len(content):,} bytes: give fewer positions")
    write_atomically(path, content)
    png = own[start].png
    if png is not None:
        write_atomically(path.with_suffix(".png"), png)
    return path


def digits_explorers(store: Store, *, recipe: str = "quick", coder: str = "quick") -> list[Explorer | Missing]:
    """The four explorers of the embedded digits; what is missing in the store is computed, in about a minute or two."""
    data, setting = load_images("digits"), Setting(recipe=recipe, store=store)
    train, ratios, seeds = data.train, (0.02, 0.05, 0.1, 0.2, 0.3), (0, 1, 2)
    lowest_ids = [train.ids[train.labels == label].min() for label in range(train.n_classes)]
    stage = Patchifier(Pool(train, setting=setting), Patchify(autoencoder=coder))
    selections = [quantize(train, ratio, setting=setting) for ratio in ratios]
    judged = DataSet(data.name, *train.hold_out(0.2, seed=0))
    runs = compare(judged, ["random"], (0.05, 0.15, 0.4), seeds[:2], setting=setting).pilots("random")
    curves, errors = fit_curves(runs.sizes, runs.errors), runs.errors.mean(axis=(0, 1))
    budgets = np.geomspace(runs.sizes[0].sum(), 0.6 * len(train), 16)  # below, no curve is known
    return [
        ratio_explorer(data, ["dqas", "random"], ratios, seeds, setting=setting, compute=True),
        drop_explorer(stage, lowest_ids),
        budget_explorer(train, curves, errors, budgets=[round(b) for b in budgets], selections=selections[1:]),
        rounds_explorer(train, selections[2]),
    ]


def stored_explorers(store: Store, given: argparse.Namespace) -> list[Explorer | Missing]:
    """The ratio explorer of the command line's data set, methods, ratios and seeds, of what the store holds."""
    data, setting = load_images(given.dataset), Setting(store=store)
    return [ratio_explorer(data, given.methods, given.ratios, given.seeds, setting=setting)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write explorers as pages of their own."""
    parser = argparse.ArgumentParser(prog="python -m dqas_lib.explorers.pages", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/explorers"), help="folder (default: %(default)s)")
    parser.add_argument("--dataset", default="digits", help="another one: only its ratio explorer, of stored results")
    parser.add_argument("--methods", nargs="+", default=["dqas", "random"], help="of notebook 06")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.05, 0.1, 0.2], help="of notebook 06")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of notebook 06")
    given = parser.parse_args(arguments)
    store, suffix = Store.default(), "" if given.dataset == "digits" else f"-{Path(given.dataset).stem}"
    try:
        for explorer in stored_explorers(store, given) if suffix else digits_explorers(store):
            path = write_page(explorer, given.out, suffix)
            print(f"{path}: {path.stat().st_size:,} bytes")
    except DqasError as error:
        print(error.one_line(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
