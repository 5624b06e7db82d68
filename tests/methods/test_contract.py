"""What every method promises: exact counts, one seed one choice, ids and not input order, odd sizes, clear errors."""

import numpy as np
import pytest
from toys import random_pool, toy_images

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods import METHODS, Choice, get_method, register
from dqas_lib.methods.adq import ADQ
from dqas_lib.pool import NEEDS, Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TRAINS_ITSELF = {"dqas", "deepfool", "adq", "bins-random", "dqas-shuffled"}  # needs a network, not only its features
FROM_GIVEN = sorted(set(METHODS) - TRAINS_ITSELF)
TINY = Recipe("tiny", steps=20, batch_size=16, lr=0.05)


@pytest.mark.parametrize("name", FROM_GIVEN)
def test_counts_are_exact_and_one_seed_gives_one_choice(name):
    labels = np.repeat([0, 1, 2], [31, 17, 9])
    for budget in (1, 2, 7, 23, 56, 57):
        choice = METHODS[name]().select(random_pool(labels), budget)
        assert len(np.unique(choice.positions)) == len(choice.positions) == budget
        assert choice.positions.dtype.kind == "i"
        assert 0 <= choice.positions.min() <= choice.positions.max() < 57
        again = METHODS[name]().select(random_pool(labels), budget)
        assert np.array_equal(choice.positions, again.positions)
        if choice.weights is not None:
            assert choice.weights.shape == (budget,)
            assert choice.weights.min() >= 0
            assert choice.weights.sum() > 0
            assert np.array_equal(choice.weights, again.weights)


@pytest.mark.parametrize("name", FROM_GIVEN)
def test_the_choice_follows_the_ids_and_not_the_order(name):
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    ids = np.random.default_rng(1).permutation(600)[:60]
    order = np.random.default_rng(2).permutation(60)
    first = random_pool(labels, ids)
    second = Pool(
        first.images.take(order),
        given={k: v[order] if k in ("features", "logits") else v[:, order] for k, v in first.given.items()},
    )
    one, two = METHODS[name]().select(first, 18), METHODS[name]().select(second, 18)
    assert first.images.ids[one.positions].tolist() == second.images.ids[two.positions].tolist()


@pytest.mark.parametrize("name", FROM_GIVEN)
def test_odd_pools(name):
    """One class; one image a class; one image in all; nothing but duplicates."""
    method = METHODS[name]()
    assert len(set(method.select(random_pool([0] * 12, n_classes=1), 5).positions)) == 5
    assert len(set(method.select(random_pool([0, 1, 2]), 2).positions)) == 2
    assert method.select(random_pool([0], n_classes=1), 1).positions.tolist() == [0]
    same = random_pool(np.repeat([0, 1, 2], 8))
    given = {k: np.zeros_like(v) + 1 for k, v in same.given.items()}
    duplicates = Pool(same.images, given=given)
    assert len(set(method.select(duplicates, 10).positions)) == 10
    assert len(set(method.select(duplicates, 24).positions)) == 24


BALANCED = sorted(name for name, cls in METHODS.items() if hasattr(cls, "balance"))


@pytest.mark.parametrize("name", sorted(set(BALANCED) - {"deepfool"}))
def test_balance_is_honored(name):
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    counts = {
        balance: np.bincount(
            labels[METHODS[name](balance=balance).select(random_pool(labels), 12).positions], minlength=3
        )
        for balance in ("proportional", "equal", "free")
    }
    assert counts["proportional"].tolist() == [6, 4, 2]
    assert counts["equal"].tolist() == [4, 4, 4]
    assert counts["free"].sum() == 12


def test_balance_of_deepfool_is_honored(monkeypatch):
    """Its norms are written down here: class 1 is nearest to the boundary, so with "free" all picks are of it."""
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    norms = np.where(labels == 1, 1.0, 5.0) + np.arange(60) / 100
    monkeypatch.setattr(Pool, "trained", None)
    monkeypatch.setattr("dqas_lib.methods.deepfool.perturbation_norms", lambda *_, **__: norms)
    pool = Pool(toy_images(labels), setting=Setting(recipe=TINY))
    for balance, counts in {"proportional": [6, 4, 2], "equal": [4, 4, 4], "free": [0, 12, 0]}.items():
        choice = METHODS["deepfool"](balance=balance).select(pool, 12)
        assert np.bincount(labels[choice.positions], minlength=3).tolist() == counts
        for label in range(3):  # the lowest norms of each class, nearest first
            members = choice.positions[labels[choice.positions] == label]
            assert members.tolist() == (np.flatnonzero(labels == label)[: counts[label]]).tolist()


@pytest.mark.parametrize("name", BALANCED)
def test_an_unknown_balance_is_named(name):
    with pytest.raises(InputError, match="balance is one of proportional, equal, free; got 'even'"):
        METHODS[name](balance="even")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_needs_are_declared_and_named_when_missing(name):
    needs = getattr(METHODS[name], "needs", ())
    assert set(needs) <= set(NEEDS)
    for missing in needs:
        if missing == "gradients":
            continue  # made of features, logits and labels: named as gradients below
        pool = random_pool([0, 0, 1, 1, 2, 2])
        given = dict(pool.given)
        for key in {"features": ["features"], "logits": ["logits"], "dynamics": ["margin"]}.get(missing, []):
            del given[key]
        lacking = Pool(pool.images, given=given, labeled=missing != "labels")
        with pytest.raises(InputError, match=f"method '{name}' needs .*{missing}"):
            METHODS[name]().select(lacking, 3)
    assert "gradients" not in needs or "logits" not in needs


def test_a_missing_gradient_and_an_unlabeled_pool_are_named():
    pool = random_pool([0, 0, 1, 1, 2, 2])
    no_logits = Pool(pool.images, given={"features": pool.given["features"]})
    with pytest.raises(InputError, match="method 'craig' needs gradients, which the pool does not have: it has la"):
        get_method("craig").select(no_logits, 2)
    unlabeled = Pool(pool.images, given=pool.given, labeled=False)
    with pytest.raises(InputError, match="balance 'proportional' needs labels"):
        get_method("k-center").select(unlabeled, 2)
    assert len(METHODS["k-center"](balance="free").select(unlabeled, 2).positions) == 2
    with pytest.raises(InputError, match=r"given 'features' must be \(6, ...\); got \(5, 2\)"):
        Pool(pool.images, given={"features": np.zeros((5, 2))})


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_its_page(name):
    """The docstring: definition, what it needs, what it costs, and a source."""
    page = METHODS[name].__doc__
    for part in ("Definition:", "cost", "need", "["):
        assert part.lower() in page.lower(), part


def test_unknown_methods_list_the_known_ones():
    with pytest.raises(
        InputError,
        match=r"unknown method 'herdin' \(did you mean 'herding'\?\): the known ones are dqas, dq, random, herding",
    ):
        get_method("herdin")
    with pytest.raises(TypeError):
        METHODS["herding"](balanced=True)


@pytest.fixture(scope="module")
def small_digits(digits) -> ImageSet:
    """15 digits of each class."""
    train = digits.train
    return train.take(np.concatenate([np.flatnonzero(train.labels == c)[:15] for c in range(10)]))


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("methods"))


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"dqas", "bins-random", "dqas-shuffled"}))
def test_every_method_on_images(name, small_digits, shared_store):
    """Through the front door, with shared work from the store; a second call gives the same ids in no time."""
    method = ADQ(steps=5) if name == "adq" else name  # its 200 contrastive steps are tested elsewhere, on fewer images
    found = quantize(small_digits, 0.2, method=method, setting=Setting(recipe=TINY, store=shared_store))
    assert len(found) == 30
    assert len(np.unique(found.ids)) == 30
    again = quantize(small_digits, 0.2, method=method, setting=Setting(recipe=TINY, store=shared_store))
    assert again.ids.tolist() == found.ids.tolist()


def test_shared_work_is_done_once_and_does_not_depend_on_the_order(small_digits, tmp_path):
    store = Store(tmp_path)
    first = quantize(small_digits, 0.2, method="herding", setting=Setting(recipe=TINY, store=store))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    quantize(small_digits, 0.3, method="k-center", setting=Setting(recipe=TINY, store=store))
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    shuffled = small_digits.take(np.random.default_rng(0).permutation(150))
    second = quantize(shuffled, 0.2, method="herding", setting=Setting(recipe=TINY))
    assert first.ids.tolist() == second.ids.tolist()


# ------------------------------------------------------------------------------------------------ the open door


class Foreign:
    """A method from outside: a name and select(pool, budget), no base class."""

    name = "every-other"

    def __init__(self, positions=None):
        self.positions = positions

    def select(self, pool, budget):
        return np.arange(len(pool.images))[::-2][:budget] if self.positions is None else self.positions


def test_any_object_with_a_name_and_select_is_a_method(blobs):
    subset = quantize(blobs, 0.1, method=Foreign(), setting=Setting(recipe=TINY))
    assert subset.ids.tolist() == [59, 57, 55, 53, 51, 49]
    assert subset.settings["method"] == {"name": "every-other", "class": "Foreign"}
    weighted = quantize(
        blobs, 0.05, method=Foreign(Choice(np.array([4, 2, 9]), np.array([1, 0, 2]))), setting=Setting(recipe=TINY)
    )
    assert weighted.weights.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 1, 1], "gave 3 positions, 2 of them distinct, instead of 3"),
        ([0, 1], "gave 2 positions, 2 of them distinct, instead of 3"),
        ([0, 1, 60], "gave position 60, but the pool has 60 images"),
        ([-1, 0, 1], "gave position -1, but the pool has 60 images"),
        ([0.0, 1.0, 2.0], r"gave list instead of \(3,\) whole numbers, positions in the pool"),
        (np.ones(60, dtype=bool), r"gave ndarray instead of \(3,\) whole numbers"),
        ("0, 1, 2", r"gave str instead of \(3,\) whole numbers"),
        ([[0, 1], [2]], r"gave list instead of \(3,\) whole numbers"),
        (Choice(np.arange(3), weights=np.array([1.0, -1.0, 0.0])), "gave weights that are not 3 finite numbers >= 0"),
        (Choice(np.arange(3), weights=np.ones(2)), "gave weights that are not 3 finite numbers >= 0"),
    ],
)
def test_what_a_method_gives_is_checked(blobs, positions, message):
    with pytest.raises(InputError, match=f"^method 'every-other' {message}"):
        quantize(blobs, 0.05, method=Foreign(positions), setting=Setting(recipe=TINY))


def test_what_is_no_method_is_named(blobs):
    with pytest.raises(InputError, match=r"Foreign is a class: give an object of it, Foreign\(\)"):
        quantize(blobs, 0.1, method=Foreign)
    with pytest.raises(InputError, match=r"not a selection method: 3 lacks a name or select\(pool, budget\)"):
        quantize(blobs, 0.1, method=3)


def test_a_name_is_registered_once():
    class Second:
        name = "herding"

    with pytest.raises(InputError, match="a method named 'herding' is registered already"):
        register(Second)
    with pytest.raises(InputError, match="a method needs a name, a text that is not empty; got None"):
        register(object())
    assert METHODS["herding"].__name__ == "Herding"
    assert register(METHODS["herding"]) is METHODS["herding"]  # a cell that is run again
