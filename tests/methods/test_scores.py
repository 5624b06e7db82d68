"""Methods that choose by a score: uncertainty, forgetting, GraNd, EL2N, Cal, CCS."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from dqas_lib.core.errors import InputError
from dqas_lib.data.image_set import ImageSet
from dqas_lib.methods.cal import Cal, contrast, nearest_neighbors
from dqas_lib.methods.ccs import CCS, stratified
from dqas_lib.methods.difficulty import EL2N, Forgetting, GraNd
from dqas_lib.methods.uncertainty import Entropy, LeastConfidence, Margin
from dqas_lib.training.dynamics import area_under_margin, forgetting_events, outcome, training_dynamics
from dqas_lib.training.recipes import Recipe
from dqas_lib.training.setting import Setting

# Three predictions of three classes. A: sure. B: two classes tie, the third is out. C: flat, but one class leads.
PROBABILITIES = np.array([[0.90, 0.05, 0.05], [0.499, 0.499, 0.002], [0.40, 0.30, 0.30]])
LOGITS = np.log(PROBABILITIES)


def test_uncertainty_scores_are_their_formulas(toy):
    pool = toy([0, 0, 0], n_classes=3, logits=LOGITS)
    assert LeastConfidence().scores(pool) == pytest.approx([0.10, 0.501, 0.60])
    assert Margin().scores(pool) == pytest.approx([-0.85, 0.0, -0.10], abs=1e-7)
    assert Entropy().scores(pool) == pytest.approx([-(row * np.log(row)).sum() for row in PROBABILITIES])
    assert Entropy().scores(toy([0], n_classes=4, logits=np.zeros((1, 4)))) == pytest.approx([np.log(4)])


@pytest.mark.parametrize("balance", ["proportional", "free"])
@pytest.mark.parametrize(("method", "first"), [(LeastConfidence, 2), (Margin, 1), (Entropy, 2)])
def test_the_most_uncertain_image_is_picked_first(toy, method, first, balance):
    pool = toy([0, 0, 0], n_classes=3, logits=LOGITS)
    assert method(balance=balance).select(pool, 1).positions.tolist() == [first]
    assert 0 not in method(balance=balance).select(pool, 2).positions  # the sure one is last


def test_balance_decides_who_competes_with_whom(toy):
    # class 1 is uncertain throughout, class 0 sure throughout
    logits = np.array([[9, 0], [8, 0], [7, 0], [6, 0], [0, 0.1], [0, 0.2], [0, 0.3], [0, 0.4]])
    pool = toy([0, 0, 0, 0, 1, 1, 1, 1], logits=logits)
    assert sorted(Margin(balance="free").select(pool, 4).positions) == [4, 5, 6, 7]
    assert sorted(Margin().select(pool, 4).positions) == [2, 3, 4, 5]
    assert sorted(Margin(balance="equal").select(toy([0] * 6 + [1, 1], logits=logits), 4).positions) == [4, 5, 6, 7]
    with pytest.raises(InputError, match="balance is one of proportional, equal, free; got 'fair'"):
        Margin(balance="fair")


def test_forgetting_counts_falls_and_never_learned_is_most():
    correct = np.array(
        [  # columns: always right, forgotten once, forgotten twice, never right, learned late
            [1, 1, 1, 0, 0],
            [1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0],
            [1, 1, 0, 0, 1],
        ]
    )
    assert forgetting_events(correct).tolist() == [0, 1, 2, np.inf, 0]


def test_forgetting_picks_never_learned_images_first_and_draws_ties_by_the_seed(toy):
    correct = np.array([[1, 1, 1, 0, 1, 1], [1, 0, 0, 0, 1, 1], [1, 1, 1, 0, 1, 1], [1, 1, 0, 0, 1, 1]])
    given = {name: np.zeros((4, 6)) for name in ("margin", "el2n", "grand")}
    picks = [
        Forgetting().select(toy([0] * 6, seed=seed, correct=correct, **given), 4).positions.tolist()
        for seed in range(30)
    ]
    assert all(pick[:3] == [3, 2, 1] for pick in picks)
    assert {pick[3] for pick in picks} == {0, 4, 5}  # three images were never forgotten: any of them


def test_one_moment_of_training_by_hand():
    features, logits = np.array([[3.0, 4.0], [0.0, 0.0]]), np.log(np.array([[0.8, 0.2], [0.5, 0.5]]))
    found = outcome(features, logits, np.array([0, 1]))
    assert found["correct"].tolist() == [True, False]  # the tie goes to class 0
    assert found["margin"] == pytest.approx([np.log(4), 0], abs=1e-6)
    assert found["el2n"] == pytest.approx([np.sqrt(0.08), np.sqrt(0.5)])
    assert found["grand"] == pytest.approx([np.sqrt(0.08 * 26), np.sqrt(0.5)])
    assert area_under_margin(np.array([[1.0, -2.0], [3.0, 0.0]])).tolist() == [2.0, -1.0]


def test_scores_do_not_depend_on_the_last_batch(blobs):
    """60 images in batches of 512 or with another 7 of them in the last one: each score is of its own image."""
    recipe = Recipe("tiny", steps=12, batch_size=16)
    setting = Setting(network="small_cnn", recipe=recipe)
    found = training_dynamics(blobs, seed=0, checkpoints=4, setting=setting, with_logits=True)
    assert found["step"].tolist() == [3, 6, 9, 12]
    shapes = {name: values.shape for name, values in found.items() if name != "step"}
    assert shapes == {
        "features": (60, 96),
        "logits": (60, 3),
        **{name: (4, 60) for name in ("correct", "margin", "el2n", "grand")},
    }
    # duplicates of one image get one score, wherever they stand
    twice = np.r_[np.arange(60), np.arange(7)]
    doubled = ImageSet(blobs.images[twice], blobs.labels[twice], np.arange(67), blobs.class_names, "doubled")
    found = training_dynamics(doubled, seed=0, checkpoints=1, setting=Setting(network="small_cnn", recipe=recipe))
    assert found["grand"][0, 60:] == pytest.approx(found["grand"][0, :7], rel=1e-5)
    with pytest.raises(InputError, match="checkpoints must be a whole number >= 1; got 0"):
        training_dynamics(blobs, seed=0, checkpoints=0, setting=Setting(network="small_cnn", recipe=recipe))


def test_grand_and_el2n_take_the_largest(toy):
    given = {"correct": np.ones((1, 4)), "margin": np.ones((1, 4))}
    pool = toy([0] * 4, grand=[[1, 9, 3, 4]], el2n=[[5, 1, 2, 0.1]], **given)
    assert GraNd().select(pool, 2).positions.tolist() == [1, 3]
    assert EL2N().select(pool, 2).positions.tolist() == [0, 2]
    with pytest.raises(InputError, match="networks must be a whole number >= 1; got 0"):
        GraNd(networks=0)


def test_cal_wants_neighbors_that_are_predicted_otherwise(toy):
    # two groups along two directions; image 3 sits among group A but is predicted as class 1
    features = [[1, 0], [1, 0.01], [1, 0.02], [1, 0.03], [0, 1], [0.01, 1], [0.02, 1], [0.03, 1]]
    logits = [[4, 0], [4, 0], [4, 0], [0, 4], [0, 4], [0, 4], [0, 4], [0, 4]]
    pool = toy([0] * 8, n_classes=2, features=features, logits=logits)
    scores = contrast(np.array(features), np.array(logits, dtype=float), 3)
    p = 1 / (1 + np.exp(-4.0))
    assert scores[3] == pytest.approx((2 * p - 1) * 4)  # KL of (p, 1-p) from (1-p, p), all three neighbors alike
    assert scores[0] == pytest.approx(scores[3] / 3)
    assert scores[5] == pytest.approx(0)
    assert Cal(neighbors=3).select(pool, 1).positions.tolist() == [3]
    assert contrast(np.ones((1, 2)), np.ones((1, 2)), 10).tolist() == [0.0]
    with pytest.raises(InputError, match="neighbors must be a whole number >= 1; got 0"):
        Cal(neighbors=0)


def test_neighbors_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(700, 5)).astype(np.float32)  # more than one block
    theirs = NearestNeighbors(n_neighbors=8, metric="cosine", algorithm="brute").fit(features)
    assert np.array_equal(nearest_neighbors(features, 7), theirs.kneighbors(features, return_distance=False)[:, 1:])


def test_ccs_leaves_out_the_hardest_and_spreads_over_the_range(toy):
    # 100 images: 90 easy ones with margins 9.0 ... 9.9, then 10 at 0, 1, ..., of which the three lowest are left out
    margin = np.r_[np.linspace(9.0, 9.9, 90), np.arange(-3.0, 7.0)][None]
    given = {name: np.ones((1, 100)) for name in ("correct", "el2n", "grand")}
    pool = toy([0] * 100, margin=margin, **given)
    chosen = CCS(hard=0.03, strata=10).select(pool, 14).positions
    assert not set(chosen) & {90, 91, 92}  # margins -3, -2, -1
    # strata of width 0.99 over 0 ... 9.9: the seven images at 0 ... 6 are alone in theirs and all taken,
    # and the remaining 7 come from the crowded stratum
    assert {93, 94, 95, 96, 97, 98, 99} <= set(chosen)
    assert len(set(chosen) & set(range(90))) == 7
    assert len(set(CCS(hard=0.9).select(pool, 50).positions)) == 50  # never leaves out so many that too few are left
    with pytest.raises(InputError, match=r"hard must be a number in \[0, 1\); got 1.0"):
        CCS(hard=1.0)


def test_strata_share_the_budget_equally():
    scores = np.repeat([0.0, 1.0, 2.0, 3.0], [3, 50, 50, 50])
    chosen = stratified(scores, 33, 4, np.random.default_rng(0))
    assert np.bincount(scores[chosen].astype(int)).tolist() == [3, 10, 10, 10]
    assert sorted(stratified(np.zeros(5), 5, 50, np.random.default_rng(0))) == [0, 1, 2, 3, 4]
