"""Explorers without a browser: what they draw, say, and answer when something is missing."""

import base64
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dqas_lib.bins.bins import make_bins
from dqas_lib.budget.sensitivity import ClassCurves
from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import DataSet, ImageSet
from dqas_lib.explorers import frames, pages, widgets
from dqas_lib.explorers import frames as explorers
from dqas_lib.methods import METHODS
from dqas_lib.patches.autoencoder_training import AutoencoderRecipe
from dqas_lib.patches.masks import DROPS, keep_mask, pixel_mask
from dqas_lib.patches.patchify import Patchifier
from dqas_lib.pool import Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

RATIOS = (0.05, 0.2)


def rows_of(name, methods=("dqas", "random"), ratios=RATIOS):
    found = []
    for m, method in enumerate(methods):
        for r, ratio in enumerate(ratios):
            for seed in (0, 1):
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
    return explorers.RatioExplorer(
        digits, ids, rows_of("digits"), features, bins, n_bytes={("dqas", 0.2): 8123}, full_bytes=40_000
    )


@pytest.fixture(scope="module")
def curves():
    """Class 0 gains most from another image, class 2 nothing."""
    a, b, e = np.array([2.0, 0.5, 0.0]), np.full(3, 0.5), np.array([0.0, 0.1, 0.3])
    return ClassCurves(a, b, e, copies=np.stack([a, b, e])[:, None])


@pytest.fixture(scope="module")
def budget(curves):
    return explorers.BudgetExplorer(
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
    painted = np.stack([images, images, images // 2])
    return explorers.DropExplorer(pool, importance, thetas, painted, (100.0, 80.0, 60.0), coder_bytes=5000)


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
    return explorers.RoundsExplorer(train, number, counts, scores, bin=np.arange(n) % 10)


@pytest.fixture(params=["ratio", "drop", "budget", "rounds"])
def explorer(request):
    return request.getfixturevalue(request.param)


def decoded(frame):
    return np.asarray(Image.open(io.BytesIO(frame.png)).convert("RGB"), dtype=int)


# ------------------------------------------------------------------------------------------------- frames


def test_every_position_gives_a_small_palette_png_of_one_size(explorer):
    drawn = frames.draw_frames(explorer)
    assert len(drawn) == len(explorer.dial.texts)
    pictures = [Image.open(io.BytesIO(frame.png)) for frame in drawn]
    assert {picture.mode for picture in pictures} == {"P"}
    assert {picture.size for picture in pictures} == {(drawn[0].width, drawn[0].height)}
    assert all(len(frame.png) < 40_000 for frame in drawn)
    assert len({frame.png for frame in drawn}) == len(drawn)
    for place, frame in enumerate(drawn):
        assert explorer.dial.texts[place] in frame.alt
        assert frame.caption in frame.alt
        assert "nan" not in frame.alt.lower().split()


def test_a_frame_is_the_same_every_time_and_differs_between_choices(explorer):
    last = tuple(len(choice.texts) - 1 for choice in explorer.choices)
    first = frames.draw_frame(explorer, 1)
    assert frames.draw_frame(explorer, 1) == first
    other = frames.draw_frame(explorer, 1, last)
    assert other.png != first.png
    assert np.abs(decoded(other) - decoded(first)).max() > 50
    with pytest.raises(InputError, match="no position 99"):
        frames.draw_frame(explorer, 99)
    with pytest.raises(InputError, match="no position"):
        frames.draw_frame(explorer, 0, (*last, 0))


def test_thirty_two_frames_take_less_than_350_kilobytes(budget):
    many = replace(budget, budgets=tuple(range(9, 41)))
    assert sum(len(frame.png) for frame in frames.draw_frames(many)) < 350_000


def test_questions_are_two_to_four_and_their_answers_hold_numbers(explorer):
    questions = explorer.questions()
    assert 2 <= len(questions) <= 4
    assert all(question.text.strip().endswith(("?", ".")) for question in questions)
    assert any(re.search(r"\d", question.answer) for question in questions)
    assert "nan" not in " ".join(question.answer for question in questions).lower().split()


def test_a_dial_needs_a_start_among_its_positions():
    with pytest.raises(InputError, match="needs positions"):
        frames.Dial("ratio", ())
    with pytest.raises(InputError, match="needs positions"):
        frames.Dial("ratio", ("a",), start=1)


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (9138, "9.1 kB"), (318e3, "318 kB"), (2.34e6, "2.3 MB")]
)
def test_bytes_as_people_read_them(n, text):
    assert frames.in_bytes(n) == text


def test_mosaic_places_images_row_by_row():
    images = np.stack([np.full((4, 4, 3), value, dtype=np.uint8) for value in (10, 20, 30)])
    sheet = frames.mosaic(images, 2, 2)
    assert sheet.shape == (9, 9, 3)
    corners = [int(sheet[y, x, 0]) for y in (0, 5) for x in (0, 5)]
    assert corners == [10, 20, 30, 255]


# ------------------------------------------------------------------------------------------------- ratio


def test_the_ratio_explorer_says_what_the_selection_holds(ratio):
    assert ratio.dial.texts == ("5 %", "20 %")
    assert ratio.choices[1].texts == ("DQAS", "Random")
    caption = frames.draw_frame(ratio, 1, (4, 0)).caption
    # 12 of every odd class and 24 of every even one
    assert "DQAS keeps 180 of 1,201 images (20 %): 24 of class 4; most of 0 (24), fewest of 1 (12)." in caption
    # accuracies 0.85 and 0.86: mean 85.5, half width t(0.975, 1) * 0.00707 / sqrt 2 = 12.706 * 0.005
    assert "Accuracy 85.5 ± 6.4 % (2 seeds, 95 % interval)" in caption
    assert "not published" in caption
    assert "Stored: 8.1 kB of 40.0 kB" in caption


def test_published_values_stand_beside_ours_with_why_they_do_not_compare(ratio, digits):
    named = replace(ratio, data=DataSet("cifar10", digits.train, digits.test), rows=rows_of("cifar10"))
    assert "published: 90.2 % (BGFDQ" in frames.draw_frame(named, 1).caption
    assert "not comparable: network small_cnn, published resnet18" in frames.draw_frame(named, 1).caption
    assert "not published" in frames.draw_frame(named, 0).caption


def test_results_of_another_data_set_are_refused_in_a_sentence(ratio):
    found = explorers.or_sentence("ratio", "t", lambda: replace(ratio, rows=rows_of("cifar10")))
    assert isinstance(found, frames.Missing)
    assert "these results are of 'cifar10', the images are of 'digits'" in found.sentence
    with pytest.raises(DataError, match="features and bins are of 7"):
        replace(ratio, features=ratio.features[:7])


def test_a_missing_selection_or_training_is_one_sentence_at_its_position(ratio, digits):
    ids = {key: value for key, value in ratio.ids.items() if key != ("dqas", 0.2)}
    frame = frames.draw_frame(replace(ratio, ids=ids), 1)
    assert frame.png is None
    assert "no selection by DQAS at 20 %" in frame.caption
    assert "06_train_and_evaluate" in frame.caption
    assert "<img" not in frame.html()
    assert html.escape(frame.caption) in frame.html()
    rows = ratio.rows[(ratio.rows["ratio"] < 0.1) | (ratio.rows["method"] == "random")]
    frame = frames.draw_frame(replace(ratio, rows=rows), 1)
    assert frame.png is None
    assert "No training of DQAS at 20 %" in frame.caption
    strange = {**ratio.ids, ("dqas", 0.2): np.array([0, 10**6])}
    assert "of other images" in frames.draw_frame(replace(ratio, ids=strange), 1).caption


def test_one_seed_has_no_interval(ratio):
    caption = frames.draw_frame(replace(ratio, rows=ratio.rows[ratio.rows["seed"] == 0]), 0).caption
    assert "Accuracy 80.0 % (1 seed, no interval)" in caption


def test_an_empty_store_says_which_notebook_to_run_and_offers_the_digits(digits, tmp_path):
    data = DataSet("cifar10-50", digits.train, digits.test)
    found = explorers.ratio_explorer(data, ["dqas"], [0.1], [0], store=Store(tmp_path), progress=False)
    assert isinstance(found, frames.Missing)
    for part in ("'cifar10-50'", "06_train_and_evaluate", 'DATASET = "digits"'):
        assert part in found.sentence
    assert not list(tmp_path.rglob("*.npz"))  # nothing was trained


@pytest.fixture(scope="module")
def stored(digits, tmp_path_factory):
    """A store with a tiny comparison in it."""
    from dqas_lib.training.recipes import get_recipe, scaled

    store = Store(tmp_path_factory.mktemp("store"))
    tiny = scaled(get_recipe("quick"), 0.1)
    made = explorers.ratio_explorer(
        digits, ["random"], RATIOS, [0], recipe=tiny, store=store, compute=True, workers=1, progress=False
    )
    return store, tiny, made


def test_what_a_comparison_left_in_the_store_is_read_and_nothing_else(digits, stored):
    store, tiny, made = stored
    assert isinstance(made, explorers.RatioExplorer)
    assert {len(ids) for ids in made.ids.values()} == {60, 240}
    assert made.full_bytes > made.n_bytes["random", 0.2] > made.n_bytes["random", 0.05] > 500
    before = set(store.root.rglob("*"))
    again = explorers.ratio_explorer(
        digits, ["random", "dq"], (*RATIOS, 0.3), [0], recipe=tiny, store=store, progress=False
    )
    assert set(store.root.rglob("*")) == before
    assert set(again.ids) == {("random", 0.05), ("random", 0.2)}
    assert again.ratios == RATIOS
    pd.testing.assert_frame_equal(again.rows, made.rows)


def test_a_store_of_another_library_version_counts_as_empty(digits, stored, monkeypatch):
    store, tiny, _ = stored
    monkeypatch.setattr("dqas_lib.core.digests.library_digest", lambda: "another")
    found = explorers.ratio_explorer(digits, ["random"], RATIOS, [0], recipe=tiny, store=store, progress=False)
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
    assert "DQAS was not run at this budget" in frames.draw_frame(budget, 0).caption
    assert "DQAS was not run" not in frames.draw_frame(budget, 1).caption


def test_the_drop_explorer_counts_patches_bytes_and_errors(drop):
    assert frames.draw_frame(drop, 0).caption.startswith("16 of 16 patches are kept; nothing is dropped.")
    caption = frames.draw_frame(drop, 2, (1,)).caption
    assert caption.startswith("8 of 16 patches are kept")
    assert "60 bytes an image, 40 % less than at 0 %" in caption
    assert "The autoencoder adds 5.0 kB once a set." in caption
    assert drop.psnr(1) == np.inf  # reconstructed without a fault
    image, kept = drop.images.images[1], keep_mask(drop.importance[1:], 0.5)[0]
    lost = np.repeat(np.repeat(~kept.reshape(4, 4), 2, 0), 2, 1)
    error = np.sqrt(((image[lost].astype(float) - image[lost] // 2) ** 2).mean())
    assert drop.psnr(2, 1) == pytest.approx(20 * np.log10(255 / error))
    with pytest.raises(DataError, match="make them again"):
        replace(drop, painted=drop.painted[:2])


@pytest.mark.parametrize("rule", DROPS)
def test_the_drop_explorer_drops_by_the_rule_of_its_stage(digits, rule):
    pool = Pool(digits.train.take(np.arange(40)), setting=Setting(recipe=Recipe("tiny", steps=10, batch_size=20)))
    coder = AutoencoderRecipe("tiny", steps=5, batch_size=8, width=16, depth=1, decoder_width=16)
    stage = Patchifier(pool, autoencoder=coder, drop=rule)
    made = explorers.drop_explorer(stage, digits.train.ids[:3], thetas=(0, 0.25))
    changed = (made.painted[1] != made.images.images).any(axis=-1)
    assert changed.any()
    assert not (changed & pixel_mask(stage.kept[:3], 8)).any()
    assert made.questions()[0].answer.startswith(f"Those with the lowest {rule}: where the network saw ")


def test_the_rounds_explorer_counts_what_each_round_adds(rounds):
    assert rounds.dial.texts == ("first share", "round 1", "round 2")
    assert frames.draw_frame(rounds, 0).caption.startswith("First share: 20 images added, 20 in all.")
    caption = frames.draw_frame(rounds, 2).caption
    assert caption.startswith("Round 2: 20 images added, 60 in all. Of 1,161 candidates (mean score 0.30)")
    assert "the 20 taken score 0.50 on average" in caption
    means = next(q.answer for q in rounds.questions() if "→" in q.answer)
    assert "0.80 → 0.30: it falls" in means


def test_a_selection_without_rounds_or_of_other_images_is_a_sentence(digits, blobs):
    plain = quantize(digits.train, 0.05, method="random", seed=0)
    found = explorers.rounds_explorer(digits.train, plain)
    assert found.sentence == "A selection by 'random' has no rounds to step through: select with method='dqas'."
    found = explorers.rounds_explorer(blobs, plain)
    assert "made from other images than these 60 of 'blobs'" in found.sentence
    curve = ClassCurves(*np.ones((3, 3)), copies=np.ones((3, 1, 3)))
    found = explorers.budget_explorer(blobs, curve, np.ones(3), selections=[plain])
    assert "made from other images" in found.sentence
    found = explorers.budget_explorer(digits.train, curve, np.ones(3))
    assert "must be of 10 classes; got 3" in found.sentence


def test_methods_are_named_as_in_the_figures():
    assert [explorers.label_of(name) for name in ("dqas", "random", "of my own")] == ["DQAS", "Random", "of my own"]
    assert not [name for name in METHODS if explorers.label_of(name) == name]


# ------------------------------------------------------------------------------------------------- widgets


def test_a_session_draws_the_frame_in_sight_first_and_keeps_what_it_drew(rounds, monkeypatch):
    drawn = []
    monkeypatch.setattr(widgets, "draw_frame", lambda _, place, picks: drawn.append((place, picks)) or (place, picks))
    session = widgets.Session(rounds, ("a", "b", "c"))
    assert session.waiting() == []
    assert session.draw_next() is None
    session.position, session.picks = 2, (3,)
    assert session.waiting() == [2, 1, 0]
    assert [session.draw_next() for _ in range(4)] == [2, 1, 0, None]
    session.picks = (0,)
    assert session.drawn == {0: "a", 1: "b", 2: "c"}
    session.picks = (3,)
    assert session.waiting() == []
    assert drawn == [(2, (3,)), (1, (3,)), (0, (3,))]
    for label in range(1, 11):
        session.picks = (label,)
        session.draw_next()
    assert len(session._drawn) <= widgets.KEPT_CHOICES


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


def test_a_choice_is_debounced_and_drawn_in_the_background(rounds):
    import asyncio

    panel = widgets.Panel(rounds)
    order = []
    own = panel.session.draw_next
    panel.session.draw_next = lambda: order.append((panel.session.picks, panel.session.position)) or own()

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
    assert {picks for picks, _ in order} == {(3,)}
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
    widgets.ask(frames.Missing("ratio", "t", "s"))
    assert len(shown) == 1
    widgets.ask(rounds)
    assert shown[1].data.count("<details>") == len(rounds.questions())


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
    if len(explorer.choices[0].texts) > 3:  # ten classes: their frames are as these, and take long to draw
        monkeypatch.setattr(pages, "_ROOM", 3 * pages._length(frames.draw_frames(explorer)))
    path = pages.write_page(explorer, tmp_path)
    text = path.read_text()
    assert path.stat().st_size <= pages.LARGEST_BYTES
    assert path.with_suffix(".png").read_bytes() == frames.draw_frame(explorer, explorer.dial.start).png
    assert not re.search(r"https?://|//cdn|src=\"(?!data:)", text)
    parts = Parts(text)
    data = json.loads(parts.data["frames"])
    (slider,), (image,) = [a for a in parts.of("input") if a["type"] == "range"], parts.of("img")
    start = explorer.dial.start
    assert slider["value"] == str(start)
    assert slider["max"] == str(len(explorer.dial.texts) - 1)
    assert data["texts"] == list(explorer.dial.texts)
    begin = explorer.choices[0].start
    frame = data["frames"][begin if len(data["frames"]) > 1 else 0][start]
    assert base64.b64decode(frame["png"]) == frames.draw_frame(explorer, start).png
    assert image["alt"] == frame["alt"]
    assert image["src"].endswith(frame["png"])
    assert text.count("<details>") == len(explorer.questions())
    if len(data["frames"]) > 1:
        assert next(a for a in parts.of("option") if "selected" in a)["value"] == str(begin)
        assert len(data["frames"]) == len(explorer.choices[0].texts)


def test_a_page_of_what_is_missing_is_a_sentence_and_one_too_large_is_refused(tmp_path, budget, monkeypatch):
    path = pages.write_page(frames.Missing("ratio", "Ratio", "Run notebook 06."), tmp_path)
    assert "Run notebook 06." in path.read_text()
    assert "<script" not in path.read_text()
    monkeypatch.setattr(pages, "_ROOM", 1000)
    with pytest.raises(DataError, match="give fewer positions"):
        pages.write_page(budget, tmp_path)


def test_only_what_fits_is_offered_on_a_page(budget, monkeypatch):
    own = pages._length(frames.draw_frames(budget))
    monkeypatch.setattr(pages, "_ROOM", own + 10)
    sets, menu = pages._fitting(budget)
    assert len(sets) == 1
    assert menu == ()


def test_an_id_of_each_class():
    labels = SimpleNamespace(ids=np.array([5, 3, 9, 1]), labels=np.array([0, 1, 0, 1]))
    assert pages.one_a_class(labels) == [5, 1]
