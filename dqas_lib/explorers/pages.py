"""Explorers as pages of their own: self-contained HTML with a plain range input, for readers without a kernel.

python -m dqas_lib.pages        # the explorers of the digits, into reports/explorers/
"""

import argparse
import html
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dqas_lib.budget.sensitivity import fit_curves, run_pilots
from dqas_lib.core.errors import DataError, DqasError
from dqas_lib.core.files import write_atomically
from dqas_lib.core.store import Store
from dqas_lib.data.load import load_images
from dqas_lib.explorers.class_budget import budget_explorer
from dqas_lib.explorers.drop import drop_explorer
from dqas_lib.explorers.frames import Explorer, Frame, Missing, draw_frame, draw_frames, sentence_html, starts, unbroken
from dqas_lib.explorers.ratio import ratio_explorer
from dqas_lib.explorers.rounds import rounds_explorer
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.setting import Setting

LARGEST_BYTES = 2_000_000


_ROOM = 1_850_000  # of frames, in characters: the rest of a page is small


_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:0 auto;padding:1rem}
h1{font-size:1.4rem;margin:.2rem 0 .6rem}
.turn{display:flex;flex-wrap:wrap;gap:.3rem 1rem;align-items:center;margin:.5rem 0}
.turn label{min-width:6rem}
input[type=range]{flex:1 1 14rem;min-width:10rem;accent-color:#0072B2;height:2rem}
select{font:inherit;padding:.15rem .3rem}
output{min-width:9rem;font-variant-numeric:tabular-nums}
figure{margin:0}
img{display:block;width:100%;height:auto;background:#fff;border-radius:6px}
figcaption{min-height:4.6em;padding:.4rem 0}
:focus-visible{outline:3px solid #E69F00;outline-offset:2px}
footer{opacity:.8;font-size:.85rem;margin-top:1.5rem}
"""


_SCRIPT = """
const pages = JSON.parse(document.getElementById('frames').textContent);
const range = document.getElementById('turn'), menu = document.getElementById('choice');
const image = document.getElementById('frame'), caption = document.getElementById('caption');
const said = document.getElementById('said');
function show() {
  const at = Number(range.value), frame = pages.frames[menu ? Number(menu.value) : 0][at];
  said.textContent = pages.texts[at];
  range.setAttribute('aria-valuetext', pages.texts[at]);
  image.hidden = !frame.png;
  if (frame.png) { image.src = 'data:image/png;base64,' + frame.png; image.alt = frame.alt; }
  caption.textContent = frame.caption;
}
range.addEventListener('input', show);
if (menu) menu.addEventListener('change', show);
"""


def page_html(explorer: Explorer | Missing) -> str:
    """The page of an explorer. All pictures are in it; a policy in its head forbids it any connection.

    It holds the frames of the slider and, as far as they fit in LARGEST_BYTES, those of the first free choice.
    Raises DataError when the slider's own frames do not fit.
    """
    if isinstance(explorer, Missing):
        return _page(explorer.title, sentence_html(explorer.sentence))
    sets, menu = _fitting(explorer)
    dial = explorer.dial
    begin = explorer.choices[0].start if menu else 0
    first = sets[begin][dial.start]
    data = {
        "texts": dial.texts,
        "frames": [
            [{"png": f.source.partition(",")[2], "alt": f.alt, "caption": unbroken(f.caption)} for f in s] for s in sets
        ],
    }
    options = "".join(
        f'<option value="{place}"{" selected" if place == begin else ""}>{html.escape(text)}</option>'
        for place, text in enumerate(menu)
    )
    choice = (
        f'<div class="turn"><label for="choice">{html.escape(explorer.choices[0].label)}</label>'
        f'<select id="choice" autocomplete="off">{options}</select></div>'
        if menu
        else ""
    )
    questions = "".join(
        f"<li>{html.escape(q.text)}<details><summary>Answer</summary><p>{html.escape(q.answer)}</p></details></li>"
        for q in explorer.questions()
    )
    label = html.escape(dial.label)
    frames = json.dumps(data).replace("</", "<\\/")
    body = f"""
<div class="turn"><label for="turn">{label}</label>
<input id="turn" type="range" min="0" max="{len(dial.texts) - 1}" step="1" value="{dial.start}" autocomplete="off"
 aria-valuetext="{html.escape(dial.texts[dial.start], quote=True)}">
<output id="said" for="turn">{html.escape(dial.texts[dial.start])}</output></div>
{choice}
<figure><img id="frame" width="{first.width}" height="{first.height}" alt="{html.escape(first.alt, quote=True)}"
 src="{first.source}"{"" if first.png else " hidden"}>
<figcaption id="caption" aria-live="polite">{html.escape(unbroken(first.caption))}</figcaption></figure>
<noscript><p>This page shows one position; with JavaScript the slider moves through {len(dial.texts)}.</p></noscript>
<h2>Questions</h2><ol>{questions}</ol>
<footer>Move the slider with the mouse, a finger, or the arrow keys, Home and End. The page holds all its pictures and
loads nothing from anywhere.</footer>
<script type="application/json" id="frames">{frames}</script>
<script>{_SCRIPT}</script>"""
    return _page(explorer.title, body)


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style></head>\n'
        f"<body><main><h1>{title}</h1>{body}</main></body></html>\n"
    )


def _fitting(explorer: Explorer) -> tuple[list[tuple[Frame, ...]], tuple[str, ...]]:
    """Sets of frames, one a position of the first free choice where they all fit, and the names of these positions."""
    own = draw_frames(explorer)
    room = _ROOM - _length(own)
    if room < 0:
        raise DataError(
            f"the {len(own)} frames of explorer {explorer.name!r} take {_length(own):,} characters, a page holds "
            f"{_ROOM:,}: give fewer positions"
        )
    if not explorer.choices or _length(own) * len(explorer.choices[0].texts) > _ROOM:
        return [own], ()
    choice, begin = explorer.choices[0], starts(explorer)
    sets = []
    for place in range(len(choice.texts)):
        at = (place, *begin[1:])
        there = len(explorer.dial.texts)
        sets.append(own if at == begin else tuple(draw_frame(explorer, p, at) for p in range(there)))
    if sum(map(_length, sets)) > _ROOM:
        return [own], ()
    return sets, choice.texts


def _length(frames: Sequence[Frame]) -> int:
    return sum(len(f.source) + len(f.alt) + len(f.caption) + 40 for f in frames)


def write_page(explorer: Explorer | Missing, folder: Path) -> Path:
    """Write `<folder>/<name>.html`, and `<name>.png` as it starts; gives the page's path.

    Raises DataError when the page is larger than LARGEST_BYTES.
    """
    content = page_html(explorer).encode()
    if len(content) > LARGEST_BYTES:
        raise DataError(f"the page of explorer {explorer.name!r} has {len(content):,} bytes: give fewer positions")
    path = folder / f"{explorer.name}.html"
    write_atomically(path, content)
    first = None if isinstance(explorer, Missing) else draw_frame(explorer, explorer.dial.start).png
    if first is not None:
        write_atomically(path.with_suffix(".png"), first)
    return path


def digits_explorers(store: Store, *, recipe: str = "quick", coder: str = "quick") -> list[Explorer | Missing]:
    """The four explorers of the embedded digits; what is missing in the store is computed, in about a minute or two."""
    data, setting = load_images("digits"), Setting(recipe=recipe, store=store)
    train = data.train
    found: list[Explorer | Missing] = [
        ratio_explorer(data, ["dqas", "random"], DIGITS_RATIOS, DIGITS_SEEDS, setting=setting, compute=True)
    ]
    pool = Pool(train, seed=0, setting=setting)
    found.append(drop_explorer(Patchifier(pool, Patchify(autoencoder=coder)), one_a_class(train)))
    rest, held = train.hold_out(0.2, seed=0)

    def choose(ratio: float, seed: int):
        return quantize(rest, ratio, method="random", seed=seed, setting=setting).images

    def pilots() -> dict:
        runs = run_pilots(choose, held, (0.05, 0.15, 0.4), (0, 1), setting=setting)
        return {"sizes": runs.sizes, "errors": runs.errors}

    runs = store.load_or_compute("explorer pilots", {"images": train.fingerprint(), "recipe": recipe}, pilots)
    selections = [quantize(train, r, seed=0, setting=setting) for r in DIGITS_RATIOS]
    curves = fit_curves(runs["sizes"], runs["errors"])
    errors = runs["errors"].mean(axis=(0, 1))
    found.append(budget_explorer(train, curves, errors, selections=selections))
    at = DIGITS_RATIOS.index(0.1)
    found.append(rounds_explorer(train, selections[at]))
    return found


DIGITS_RATIOS = [0.02, 0.05, 0.1, 0.2, 0.3]


DIGITS_SEEDS = [0, 1]


def one_a_class(images) -> list:
    """An id of each class: the lowest."""
    order = images.ids.argsort(kind="stable")
    first: dict[int, object] = {}
    for place in order:
        first.setdefault(int(images.labels[place]), images.ids[place])
    return [first[label] for label in sorted(first)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages of the digits."""
    parser = argparse.ArgumentParser(prog="python -m dqas_lib.pages", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/explorers"), help="folder (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        for explorer in digits_explorers(Store.default()):
            path = write_page(explorer, given.out)
            print(f"{path}: {path.stat().st_size:,} bytes")
    except DqasError as error:
        print(error.one_line(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
