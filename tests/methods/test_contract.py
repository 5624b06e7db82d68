"""What every method promises: exact counts, one seed one choice, ids and not input order, odd sizes, clear errors."""

import numpy as np
import pytest
from toys import random_given, toy_images

from dqas_lib.core.errors import InputError
from dqas_lib.core.store import Store
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods import METHODS, get_method
from dqas_lib.methods.adq import ADQ
from dqas_lib.pool import NEEDS, Pool
from dqas_lib.quantize import quantize
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

TRAINS_ITSELF = {"dqas", "deepfool", "adq", "bins-random", "dqas-shuffled"}  # needs a network, not only its features
FROM_GIVEN = sorted(set(METHODS) - TRAINS_ITSELF)
TINY = Recipe("tiny", steps=20, batch_size=16, lr=0.05)


def bench_of(labels, ids=None, seed=0, n_classes=3, given_seed=0) -> Pool:
    """A pool with random given work that belongs to the ids."""
    labels = np.asarray(labels)
    ids = np.arange(len(labels)) if ids is None else np.asarray(ids)
    by_id = np.argsort(ids, kind="stable")
    back = np.argsort(by_id)
    given = random_given(labels[by_id], n_classes, np.random.default_rng(given_seed))
    given = {
        name: (values[back] if name in ("features", "logits") else values[:, back]).astype(np.float32)
        for name, values in given.items()
    }
    return Pool(toy_images(labels, ids, n_classes), seed=seed, given=given)


@pytest.mark.parametrize("name", FROM_GIVEN)
def test_counts_are_exact_and_one_seed_gives_one_choice(name):
    labels = np.repeat([0, 1, 2], [31, 17, 9])
    for budget in (1, 2, 7, 23, 56, 57):
        choice = METHODS[name]().select(bench_of(labels), budget)
        assert len(np.unique(choice.positions)) == len(choice.positions) == budget
        assert choice.positions.dtype.kind == "i"
        assert 0 <= choice.positions.min() <= choice.positions.max() < 57
        again = METHODS[name]().select(bench_of(labels), budget)
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
    first = bench_of(labels, ids)
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
    assert len(set(method.select(bench_of([0] * 12, n_classes=1), 5).positions)) == 5
    assert len(set(method.select(bench_of([0, 1, 2]), 2).positions)) == 2
    assert method.select(bench_of([0], n_classes=1), 1).positions.tolist() == [0]
    same = bench_of(np.repeat([0, 1, 2], 8))
    given = {k: np.zeros_like(v) + 1 for k, v in same.given.items()}
    duplicates = Pool(same.images, given=given)
    assert len(set(method.select(duplicates, 10).positions)) == 10
    assert len(set(method.select(duplicates, 24).positions)) == 24


@pytest.mark.parametrize("name", sorted(name for name, cls in METHODS.items() if hasattr(cls, "balance")))
def test_balance_is_honoured(name):
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    if name in TRAINS_ITSELF:
        pytest.skip("run on images below")
    counts = {
        balance: np.bincount(labels[METHODS[name](balance=balance).select(bench_of(labels), 12).positions], minlength=3)
        for balance in ("proportional", "equal", "free")
    }
    assert counts["proportional"].tolist() == [6, 4, 2]
    assert counts["equal"].tolist() == [4, 4, 4]
    assert counts["free"].sum() == 12
    with pytest.raises(InputError, match="balance is one of"):
        METHODS[name](balance="even")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_needs_are_declared_and_named_when_missing(name):
    needs = getattr(METHODS[name], "needs", ())
    assert set(needs) <= set(NEEDS)
    for missing in needs:
        if missing == "gradients":
            continue  # made of features, logits and labels: named as gradients below
        pool = bench_of([0, 0, 1, 1, 2, 2])
        given = dict(pool.given)
        for key in {"features": ["features"], "logits": ["logits"], "dynamics": ["margin"]}.get(missing, []):
            del given[key]
        lacking = Pool(pool.images, given=given, labeled=missing != "labels")
        with pytest.raises(InputError, match=f"method '{name}' needs .*{missing}"):
            METHODS[name]().select(lacking, 3)
    assert "gradients" not in needs or "logits" not in needs


def test_a_missing_gradient_and_an_unlabeled_pool_are_named():
    pool = bench_of([0, 0, 1, 1, 2, 2])
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
