"""Explorers without a browser: what they draw, say, and answer when something is missing."""

import asyncio
import base64
import functools
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dqas_lib.bins.bins import make_bins
from dqas_lib.budget.sensitivity import ClassCurves
from dqas_lib.compressed.byte_budget import StorageLaw
from dqas_lib.compressed.codecs import lossy_codec
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.data.load import load_images
from dqas_lib.experiments.compare import compare
from dqas_lib.explorers import class_budget, frames, pages, widgets
from dqas_lib.explorers import drop as drops
from dqas_lib.explorers import ratio as ratios
from dqas_lib.explorers import rounds as rounds_
from dqas_lib.explorers.bytes import BytesExplorer, bytes_explorer
from dqas_lib.methods import METHODS
from dqas_lib.notebook import plots
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.masks import DROPS, keep_mask, pixel_mask
from dqas_lib.patches.patchify import Patchifier, Patchify
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe, get_recipe, scaled
from dqas_lib.training.setting import Setting

RATIOS = (0.05, 0.2)


def rows_of(name, methods=("dqas", "random"), ratios=RATIOS):
    found = []
    for m, method in enumerate(methods):
        for r, ratio in enumerate(ratios):
            for seed in (0, 1, 2):
                accuracy = 0.80 + 0.05 * r - 0.02 * m + 0.01 * seed
                found.append(
                    {"dataset": name, "method": method, "ratio": ratio, "seed": seed, "accuracy": accuracy}
                    | {"network": "small_cnn", "recipe": "quick"}
                )
    return pd.DataFrame(found)


@pytest.fixture(scope="module")
def ratio(digits):
    """A ratio explorer of hand-made selections: "dqas" takes the lowest ids, twice as many of the even classes."""
    train = digits.train
    ids = {}
    for r in RATIOS:
        n = round(60 * r)
        take = lambda label, m: train.ids[train.labels == label][:m]  # noqa: E731
        ids["dqas", r] = np.concatenate([take(label, 2 * n if label % 2 == 0 else n) for label in range(10)])
        ids["random", r] = np.concatenate([take(label, n) for label in range(10)])
    features = train.images.reshape(len(train), -1).astype(np.float32)
    bins = make_bins(features, train.labels, 10)
    return ratios.RatioExplorer(
        digits, ids, rows_of("digits"), features, bins, n_bytes={("dqas", 0.2): 8123}, full_bytes=40_000
    )


@pytest.fixture(scope="module")
def curves():
    """Class 0 gains most from another image, class 2 nothing."""
    a, b, e = np.array([2.0, 0.5, 0.0]), np.full(3, 0.5), np.array([0.0, 0.1, 0.3])
    return ClassCurves(a, b, e, copies=np.stack([a, b, e])[:, None])


@pytest.fixture(scope="module")
def budget(curves):
    return class_budget.BudgetExplorer(
        ("red", "green", "blue"),
        curves,
        errors=np.array([0.2, 0.2, 0.4]),
        caps=np.array([50, 50, 50]),
        budgets=(9, 40, 100),
        kappas=(0.0, 0.5, 1.0),
        measured={40: np.array([20, 12, 8])},
    )


@pytest.fixture(scope="module")
def drop():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    pool = ImageSet(images, np.array([0, 1]), np.array([7, 9]), ("a", "b"), "noise")
    importance = rng.permuted(np.tile(np.arange(16, dtype=np.float32), (2, 1)), axis=1)
    thetas = (0.0, 0.25, 0.5)
    reconstructed = np.stack([images, images, images // 2])
    return drops.DropExplorer(pool, importance, thetas, reconstructed, (100.0, 80.0, 60.0), coder_bytes=5000)


@pytest.fixture(scope="module")
def rounds(digits):
    train = digits.train
    n = len(train)
    rank = np.arange(n) // 20
    scores = np.full((2, n), np.nan)
    scores[0, 20:], scores[1, 40:] = 0.8, 0.3
    scores[0, 20:40], scores[1, 40:60] = 0.9, 0.5
    number = np.where(rank <= 2, rank, -1)
    counts = np.stack([np.bincount(train.labels[(number >= 0) & (number <= r)], minlength=10) for r in range(3)])
    return rounds_.RoundsExplorer(train, number, counts, scores, bin=np.arange(n) % 10)


@pytest.fixture(scope="module")
def bytes_(digits):
    """Pilots of two numbers of images at three qualities; 1,000 small images reach more than 250 large ones."""
    pilots = [
        (n, b, e, 2.0)
        for n, errors in ((250, (0.3, 0.2, 0.19)), (1000, (0.18, 0.1, 0.09)))
        for b, e in zip((20, 40, 90), errors, strict=True)
    ]
    law, shown = StorageLaw(0.05, 1.0, 0.5, 1.0, 1.0, np.array(pilots)), digits.train.take(np.arange(6))
    return BytesExplorer(shown, np.stack([shown.images // k for k in (3, 2, 1)]), (15, 40, 75), law, "AVIF")


@pytest.fixture(params=["ratio", "drop", "budget", "rounds", "bytes_"])
def explorer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", autouse=True)
def once():
    """Every frame is drawn once in this module: what is drawn again is compared in the test that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "draw_frame", functools.cache(frames.draw_frame))
        yield frames.draw_frame


def at(explorer, position, *picks):
    """The frame at a position, the free choices where they start unless they are given."""
    return frames.draw_frame(explorer, (position, *(picks or frames.starts(explorer)[1:])))


def decoded(frame):
    return np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=int)


# ------------------------------------------------------------------------------------------------- frames


def test_every_position_gives_a_small_palette_png_of_one_size(explorer):
    drawn = frames.draw_frames(explorer)
    assert len(drawn) == len(explorer.dials[0].texts)
    pictures = [Image.open(io.BytesIO(frame.png)) for frame in drawn]
    assert {picture.mode for picture in pictures} == {"P"}
    assert {picture.size for picture in pictures} == {(drawn[0].width, drawn[0].height)}
    assert all(len(frame.png) < 40_000 for frame in drawn)
    assert len({frame.png for frame in drawn}) == len(drawn)
    for place, frame in enumerate(drawn):
        assert explorer.dials[0].texts[place] in frame.alt
        assert frame.caption in frame.alt
        assert "nan" not in frame.alt.lower().split()


def test_a_frame_is_the_same_every_time_and_differs_between_choices(explorer):
    last = tuple(len(choice.texts) - 1 for choice in explorer.dials[1:])
    first = at(explorer, 1)
    plots.use_style()  # the frame does not depend on the style of the figures around it
    assert frames.draw_frame.__wrapped__(explorer, (1, *frames.starts(explorer)[1:])) == first
    other = at(explorer, 1, *last)
    assert other.png != first.png
    assert np.abs(decoded(other) - decoded(first)).max() > 50
    with pytest.raises(InputError, match="no place \\(99"):
        at(explorer, 99)
    with pytest.raises(InputError, match="no place"):
        at(explorer, 0, *last, 0)


def test_thirty_two_frames_take_less_than_350_kilobytes(budget):
    many = replace(budget, budgets=tuple(range(9, 41)))
    some = [len(at(many, position).png) for position in (0, 8, 16, 24, 31)]
    assert len(many.dials[0].texts) * max(some) < 350_000


def test_questions_are_two_to_four(explorer):
    assert 2 <= len(explorer.questions) <= 4
    assert all(question.endswith(("?", ".")) for question in explorer.questions)


def test_a_dial_needs_a_start_among_its_positions():
    with pytest.raises(InputError, match="needs positions"):
        frames.Dial("ratio", ())
    with pytest.raises(InputError, match="needs positions"):
        frames.Dial("ratio", ("a",), start=1)


def test_images_are_placed_row_by_row_and_taken_evenly():
    images = np.stack([np.full((4, 4, 3), value, dtype=np.uint8) for value in range(0, 100, 10)])
    pool = ImageSet(images, np.zeros(10, dtype=np.int64), np.arange(10), ("a",))
    axes = Figure().add_subplot()
    for chosen, values in ((np.array([1, 2, 3]), [10, 20, 30, 255]), (np.arange(10), [0, 30, 60, 90])):
        frames.show_images(axes, pool, chosen, 2, 2, "t")
        sheet = axes.images[-1].get_array()
        assert sheet.shape == (9, 9, 3)
        assert [int(sheet[y, x, 0]) for y in (0, 5) for x in (0, 5)] == values
    frames.show_images(axes, pool, np.arange(0), 2, 2, "t")
    assert axes.texts[0].get_text() == "none"


# ------------------------------------------------------------------------------------------------- ratio


def test_the_ratio_explorer_says_what_the_selection_holds(ratio):
    assert ratio.dials[0].texts == ("5 %", "20 %")
    assert ratio.dials[2].texts == ("DQAS", "Random")
    caption = at(ratio, 1, 4, 0).caption
    # 12 of every odd class and 24 of every even one
    assert "DQAS keeps 180 of 1,201 images (20 %): 24 of class 4; most of 0 (24), fewest of 1 (12)." in caption
    # accuracies 0.85, 0.86 and 0.87: mean 86, half width t(0.975, 2) * 0.01 / sqrt 3 = 4.303 * 0.00577
    assert "Accuracy 86.0 ± 2.5 % (3 seeds, 95 % interval)" in caption
    assert "not published" in caption
    assert "Stored: 8.1 kB of 40.0 kB" in caption


def test_published_values_stand_beside_ours_with_why_they_do_not_compare(ratio, digits):
    named = replace(ratio, data=DataSet("cifar10", digits.train, digits.test), rows=rows_of("cifar10"))
    assert "published: 90.2 % (BGFDQ" in at(named, 1).caption
    assert "not comparable: network small_cnn, published resnet18" in at(named, 1).caption
    assert "not published" in at(named, 0).caption


def test_a_missing_selection_or_training_is_one_sentence_at_its_position(ratio, digits):
    ids = {key: value for key, value in ratio.ids.items() if key != ("dqas", 0.2)}
    frame = at(replace(ratio, ids=ids), 1)
    assert frame.png is None
    assert "no selection by DQAS at 20 %" in frame.caption
    assert "06_train_and_evaluate" in frame.caption
    assert "<img" not in frame.html()
    assert frame.caption in html.unescape(frame.html())
    assert "'" not in frame.html()
    rows = ratio.rows[(ratio.rows["ratio"] < 0.1) | (ratio.rows["method"] == "random")]
    frame = at(replace(ratio, rows=rows), 1)
    assert frame.png is None
    assert "No training of DQAS at 20 %" in frame.caption
    strange = {**ratio.ids, ("dqas", 0.2): np.array([0, 10**6])}
    assert "of other images" in at(replace(ratio, ids=strange), 1).caption


@pytest.mark.parametrize(("seeds", "accuracy"), [(1, "80.0"), (2, "80.5")])
def test_few_seeds_have_no_interval(ratio, seeds, accuracy):
    caption = at(replace(ratio, rows=ratio.rows[ratio.rows["seed"] < seeds]), 0).caption
    assert f"Accuracy {accuracy} % ({seeds} of 3 seeds that an interval needs)" in caption


def test_an_empty_store_says_which_notebook_to_run_and_offers_the_digits(digits, tmp_path):
    data = DataSet("cifar10-50", digits.train, digits.test)
    found = ratios.ratio_explorer(data, ["dqas"], [0.1], [0], setting=Setting(store=Store(tmp_path)))
    assert isinstance(found, frames.Missing)
    for part in ("'cifar10-50'", "06_train_and_evaluate", 'DATASET = "digits"'):
        assert part in found.sentence
    assert not list(tmp_path.rglob("*.npz"))  # nothing was trained


@pytest.fixture(scope="module")
def stored(digits, tmp_path_factory):
    """A store with a tiny comparison in it."""
    store = Store(tmp_path_factory.mktemp("store"))
    tiny = scaled(get_recipe("quick"), 0.03)
    made = ratios.ratio_explorer(
        digits, ["random"], RATIOS, [0], setting=Setting(recipe=tiny, store=store), compute=True, workers=1
    )
    return store, tiny, made


def test_what_a_comparison_left_in_the_store_is_read_and_nothing_else(digits, stored):
    store, tiny, made = stored
    assert isinstance(made, ratios.RatioExplorer)
    assert {len(ids) for ids in made.ids.values()} == {60, 240}
    assert made.full_bytes > made.n_bytes["random", 0.2] > made.n_bytes["random", 0.05] > 500
    before = set(store.root.rglob("*"))
    again = ratios.ratio_explorer(
        digits, ["random", "dq"], (*RATIOS, 0.3), [0], setting=Setting(recipe=tiny, store=store)
    )
    assert set(store.root.rglob("*")) == before
    assert set(again.ids) == {("random", 0.05), ("random", 0.2)}
    assert again.ratios == RATIOS
    pd.testing.assert_frame_equal(again.rows, made.rows)


def test_a_store_of_another_library_version_counts_as_empty(digits, stored, monkeypatch):
    store, tiny, _ = stored
    monkeypatch.setattr("dqas_lib.core.store.digest_of", lambda *code: "another")
    found = ratios.ratio_explorer(digits, ["random"], RATIOS, [0], setting=Setting(recipe=tiny, store=store))
    assert isinstance(found, frames.Missing)
    assert "by this version of the library" in found.sentence


# ------------------------------------------------------------------------------------------------- the others


def test_rules_divide_every_budget_exactly(budget):
    for total in budget.budgets:
        for kappa in budget.kappas:
            rules = budget.counts(total, kappa)
            assert set(rules) == {"equal", "error", "class-wise"} | ({"DQAS"} if total == 40 else set())
            assert all(counts.sum() == total for counts in rules.values())
    # shares by error 1 : 1 : 2
    assert budget.counts(40, 0.5)["error"].tolist() == [10, 10, 20]
    # class-wise without shrinking: the counts follow (a b)^(2/3), 2^(2/3) : 0.5^(2/3) : 0 = 2.52 : 1 : 0
    assert budget.counts(40, 0.0)["class-wise"].tolist() == [29, 11, 0]
    assert budget.counts(40, 1.0)["class-wise"].tolist() == budget.counts(40, 1.0)["equal"].tolist()


def test_predicted_accuracy_follows_the_curves(budget):
    # errors 2 / sqrt 16 = 0.5, 0.5 / sqrt 25 + 0.1 = 0.2, 0.3
    np.testing.assert_allclose(budget.predicted(np.array([16, 25, 9])), [0.5, 0.8, 0.7])
    assert budget.predicted(np.array([0, 25, 9]))[0] == pytest.approx(1 / 3)  # a guess among three
    assert "DQAS was not run at this budget" in at(budget, 0).caption
    assert "DQAS was not run" not in at(budget, 1).caption


def test_the_drop_explorer_counts_patches_bytes_and_errors(drop):
    assert at(drop, 0).caption.startswith("16 of 16 patches are kept; nothing is dropped.")
    caption = at(drop, 2, 1).caption
    assert caption.startswith("8 of 16 patches are kept")
    assert "60 bytes per image, 40 % less than at 0 %" in caption
    assert "The autoencoder adds 5.0 kB once per set." in caption
    assert drop.error(1) == 0  # reconstructed without a fault
    image, kept = drop.images.images[1], keep_mask(drop.importance[1:], 0.5)[0]
    lost = np.repeat(np.repeat(~kept.reshape(4, 4), 2, 0), 2, 1)
    error = np.sqrt(((image[lost].astype(float) - image[lost] // 2) ** 2).mean())
    assert drop.error(2, 1) == pytest.approx(error)


@pytest.mark.parametrize("rule", DROPS)
def test_the_drop_explorer_drops_by_the_rule_of_its_stage(digits, rule):
    pool = Pool(digits.train.take(np.arange(40)), setting=Setting(recipe=Recipe("tiny", steps=10, batch_size=20)))
    coder = AutoencoderRecipe("tiny", steps=5, batch_size=8, width=16, depth=1, decoder_width=16)
    stage = Patchifier(pool, Patchify(autoencoder=coder, drop=rule))
    made = drops.drop_explorer(stage, digits.train.ids[:3], thetas=(0, 0.25))
    changed = (made.reconstructed[1] != made.images.images).any(axis=-1)
    assert changed.any()
    assert not (changed & pixel_mask(stage.kept[:3], 8)).any()


def test_the_bytes_explorer_names_the_better_way_to_spend_the_bytes(bytes_):
    assert [dial.texts for dial in bytes_.dials] == [("250", "1,000"), ("15", "40", "75")]
    few, many = (bytes_.draw(Figure(), place) for place in ((0, 2), (1, 2)))
    assert "250 images in AVIF at quality 75 take 22.5 kB, 90 bytes per image, and reach 81.0 %" in few
    assert few.endswith("1,000 images at 20 bytes reach 82.0 % with fewer bytes.")
    assert many.endswith("reach 91.0 % in 2 s of training; no other pilot reaches more with as few bytes.")


def test_the_bytes_explorer_shows_the_pilots_of_the_law(digits, tmp_path):
    setting, codec = Setting(recipe=scaled(get_recipe("quick"), 0.05), store=Store(tmp_path)), lossy_codec("webp")
    images = digits.train.take(np.arange(400))
    found = bytes_explorer(images, images.ids[:5], codec=codec, qualities=(20, 80), setting=setting)
    assert found.law.pilots.shape == (6, 4)
    errors = np.abs(found.coded.astype(float) - found.shown.images).mean(axis=(1, 2, 3, 4))
    assert errors[0] > errors[1] > 0  # a higher quality is nearer to the original
    assert found.codec == "WebP"


def test_the_rounds_explorer_counts_what_each_round_adds(rounds):
    assert rounds.dials[0].texts == ("initial set", "round 1", "round 2")
    assert at(rounds, 0).caption.startswith("Initial set: 20 images added, 20 in all.")
    caption = at(rounds, 2).caption
    assert caption.startswith("Round 2: 20 images added, 60 in all. Of 1,161 candidates (mean score 0.303)")
    assert "the 20 taken score 0.5 on average" in caption


def test_a_selection_without_rounds_or_of_other_images_is_a_sentence(digits, blobs):
    plain = quantize(digits.train, 0.05, method="random", seed=0)
    found = rounds_.rounds_explorer(digits.train, plain)
    assert found.sentence == "A selection by 'random' has no rounds to step through: select with method='dqas'."
    found = rounds_.rounds_explorer(blobs, plain)
    assert "made from other images than these 60 of 'blobs'" in found.sentence
    curve = ClassCurves(*np.ones((3, 3)), copies=np.ones((3, 1, 3)))
    found = class_budget.budget_explorer(blobs, curve, np.ones(3), selections=[plain])
    assert "made from other images" in found.sentence
    found = class_budget.budget_explorer(digits.train, curve, np.ones(3))
    assert "must be of 10 classes; got 3" in found.sentence


def test_methods_are_named_and_colored_as_in_the_figures():
    assert [plots.label_of(name) for name in ("dqas", "random", "of my own")] == ["DQAS", "Random", "of my own"]
    assert not [name for name in METHODS if plots.label_of(name) == name]
    colors = plots.colors_of(["of my own", "dqas", "another", "dq"])
    assert (colors["dqas"], colors["dq"]) == (plots.METHOD_COLORS["dqas"], plots.METHOD_COLORS["dq"])
    assert len(set(colors.values())) == 4


# ------------------------------------------------------------------------------------------------- widgets


def test_a_panel_draws_the_frame_in_sight_first_and_keeps_what_it_drew(rounds, monkeypatch):
    drawn, own, panel = [], frames.draw_frame, widgets.Panel(rounds)
    monkeypatch.setattr(frames, "draw_frame", lambda explorer, places: drawn.append(places) or own(rounds, (0, 0)))
    assert drawn == []
    panel.slider.index = 2
    panel.menus[0].index = 3
    assert drawn == [(2, 3), (1, 3), (0, 3)]
    panel.menus[0].index = 0
    panel.menus[0].index = 3
    assert len(drawn) == 3  # kept
    monkeypatch.setattr(widgets, "KEPT_CHOICES", 4)
    for label in range(4, 11):
        panel.menus[0].index = label
    assert len(panel.frames) == 4 * 3


def test_the_panel_links_slider_and_frames_and_follows_a_choice(rounds):
    panel = widgets.Panel(rounds)
    assert panel.stack.selected_index == panel.slider.index == 1
    before = [picture.value for picture in panel.pictures]
    assert all("data:image/png;base64," in value and 'alt="' in value for value in before)
    panel.menus[0].index = 5  # without a running event loop everything is drawn at once
    after = [picture.value for picture in panel.pictures]
    assert all(a != b for a, b in zip(after, before, strict=True))
    assert "class 4" in after[1]
    assert panel.busy.value == ""
    panel.menus[0].index = 0
    assert [picture.value for picture in panel.pictures] == before


def test_a_choice_is_debounced_and_drawn_in_the_background(rounds, monkeypatch):
    panel = widgets.Panel(rounds)
    order, own = [], frames.draw_frame
    monkeypatch.setattr(frames, "draw_frame", lambda explorer, places: order.append(places) or own(explorer, places))

    async def turn():
        for label in (1, 2, 3):  # faster than the debounce: only the last is drawn
            panel.menus[0].index = label
        assert "drawing" in panel.busy.value
        assert order == []
        for _ in range(400):
            await asyncio.sleep(0.01)
            if panel.busy.value == "":
                return

    asyncio.run(turn())
    assert panel.busy.value == ""
    assert order == [(1, 3), (0, 3), (2, 3)]
    assert all("class 2" in picture.value for picture in panel.pictures)


def test_explore_shows_a_panel_with_a_still_picture_behind_it(rounds, monkeypatch, tmp_path):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda what, **_: shown.append(what))
    monkeypatch.setattr(widgets.plots, "display", shown.append)
    monkeypatch.delenv("DQAS_RUN_DIR", raising=False)
    widgets.explore(rounds)
    (bundle,) = shown
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert '<img width="740"' in bundle["text/html"]
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    shown.clear()
    widgets.explore(rounds)
    assert len(shown) == 2
    assert "<details><summary>As a still picture" in shown[1].data
    assert (tmp_path / "figures" / "explorer_rounds.png").stat().st_size > 1000
    shown.clear()
    widgets.explore(frames.Missing("ratio", "t", "Run <notebook> 06."))
    assert "Run &lt;notebook&gt; 06." in shown[0].data


# ------------------------------------------------------------------------------------------------- pages


class Parts(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self._in = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = dict(attributes).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._in:
            self.data[self._in] = self.data.get(self._in, "") + data

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_a_page_holds_all_its_frames_and_no_address(explorer, tmp_path, monkeypatch):
    choices = len(explorer.dials[1].texts)
    if choices > 3:  # ten classes: their frames are as these, and take long to draw
        monkeypatch.setattr(pages, "draw_frames", lambda explorer, picks=None: frames.draw_frames(explorer))
    path = pages.write_page(explorer, tmp_path)
    text = path.read_text()
    start = explorer.dials[0].start
    shown = at(explorer, start)
    assert path.stat().st_size <= pages.LARGEST_BYTES
    assert path.with_suffix(".png").read_bytes() == shown.png
    assert not re.search(r"https?://|//cdn|src=\"(?!data:)", text)
    parts = Parts(text)
    data = json.loads(parts.data["frames"])
    (slider,), (image,) = [a for a in parts.of("input") if a["type"] == "range"], parts.of("img")
    assert slider["value"] == str(start)
    assert slider["max"] == str(len(explorer.dials[0].texts) - 1)
    assert data["texts"] == list(explorer.dials[0].texts)
    begin = explorer.dials[1].start
    frame = data["frames"][begin][start]
    assert len(data["frames"]) == choices
    assert frame == {"source": shown.source, "alt": shown.alt, "caption": shown.caption}
    assert base64.b64decode(frame["source"].partition(",")[2]) == shown.png
    assert image["alt"] == frame["alt"]
    assert image["src"] == frame["source"]
    assert all(
        f"<li>{html.escape(question)}</li>".replace("&#x27;", "&#39;") in text for question in explorer.questions
    )
    assert next(a for a in parts.of("option") if "selected" in a)["value"] == str(begin)


def test_a_page_of_what_is_missing_is_a_sentence_and_one_too_large_is_refused(tmp_path, budget, monkeypatch):
    path = pages.write_page(frames.Missing("ratio", "Ratio", "Run notebook 06."), tmp_path)
    assert "Run notebook 06." in path.read_text()
    assert "<script" not in path.read_text()
    monkeypatch.setattr(pages, "LARGEST_BYTES", 1000)
    with pytest.raises(DataError, match="give fewer positions"):
        pages.write_page(budget, tmp_path)


def test_a_page_of_stored_results_of_another_data_set(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DQAS_DATA", str(tmp_path))
    parts = {
        f"{part}_{kind}": getattr(getattr(digits, part), kind)[::9]
        for part in ("train", "test")
        for kind in ("images", "labels")
    }
    np.savez(tmp_path / "few.npz", **parts, class_names=digits.train.class_names)
    command = ["--out", str(tmp_path), "--dataset", str(tmp_path / "few.npz"), "--methods", "random"]
    brief = Setting(recipe=Recipe("brief", steps=5), store=Store.default())
    monkeypatch.setenv("DQAS_WORKERS", "1")
    monkeypatch.setattr(pages, "Setting", lambda store: brief)
    assert pages.main([*command, "--ratios", "0.2", "--seeds", "0"]) == 0
    assert "run notebook 06_train_and_evaluate" in (tmp_path / "ratio-few.html").read_text()
    compare(load_images(tmp_path / "few.npz"), ["random"], [0.2], [0], setting=brief)
    assert pages.main([*command, "--ratios", "0.2", "--seeds", "0"]) == 0
    assert "Random keeps 27 of 134 images" in (tmp_path / "ratio-few.html").read_text()


def test_only_what_fits_is_offered_on_a_page(budget, tmp_path, monkeypatch):
    own = sum(len(frame.source) for frame in frames.draw_frames(budget))
    monkeypatch.setattr(pages, "LARGEST_BYTES", own + 25_000)
    parts = Parts(pages.write_page(budget, tmp_path).read_text())
    assert len(json.loads(parts.data["frames"])["frames"]) == 1
    assert not parts.of("option")


def test_nothing_a_data_set_is_called_becomes_markup(budget, tmp_path):
    names = ('<script>alert("1")</script>', "</script><b>", "a'b\"c")
    hostile = replace(budget, class_names=names, kappas=(0.5,))
    frame = at(hostile, 1)
    assert names[0] in frame.caption
    assert names[0] not in frame.html()
    assert html.escape(names[0], quote=False)[:15] in frame.html()
    text = pages.write_page(hostile, tmp_path).read_text()
    assert not any(name in text for name in names)
    assert [tag for tag, _ in Parts(text).tags].count("script") == 2
    assert json.loads(Parts(text).data["frames"])["frames"][0][1]["caption"] == frame.caption


def test_a_method_from_outside_is_explored_as_any_other(digits, stored):
    class Lowest:
        name = "lowest ids"

        def select(self, pool, budget):
            return pool.by_id[:budget]

    store, tiny, _ = stored
    setting = Setting(recipe=tiny, store=store)
    made = ratios.ratio_explorer(digits, [Lowest(), "random"], [0.05], [0], setting=setting, compute=True, workers=1)
    np.testing.assert_array_equal(np.sort(made.ids["lowest ids", 0.05]), np.sort(digits.train.ids)[:60])
    assert made.dials[2].texts == ("lowest ids", "Random")
    assert at(made, 0).caption.startswith("lowest ids keeps 60 of 1,201 images (5 %)")
