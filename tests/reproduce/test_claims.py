"""Claims: which rows answer, what is said of them, and the verdict."""

import pytest

from dqas_lib.reproduce.claims import CLAIMS, Claim, answers, verdict
from dqas_lib.reproduce.main_table import main_table

PAIRED = "ratio,first,second,n,difference,half,p,correlation,p_holm\n"
PROFILES = [
    {"profile": "tiny", "runs": [{"name": "06", "files": {"tables/tiny/06/06_paired_digits.csv": "", "x.png": ""}}]}
]
CLAIM = Claim("better", "06_paired_.*", {"first": "dqas", "second": "random"})


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "tables" / "tiny" / "06" / "06_paired_digits.csv"
    path.parent.mkdir(parents=True)
    return path


def test_only_the_rows_that_answer_are_read(tmp_path, table):
    table.write_text(
        PAIRED + "0.05,dqas,random,5,0.02,0.01,0.001,,0.004\n0.05,dqas-plus,random,5,-0.2,0.01,0.001,,0.004\n"
        "0.1,dqas,random,5,0.03,0.01,0.001,,0.002\n0.1,dqas,dq,5,-0.03,0.01,0.001,,0.002\n"
    )
    (answer,) = answers(CLAIM, PROFILES, tmp_path)
    assert answer.results == ("5 %: +2.0 ± 1.0 points, 5 seeds", "10 %: +3.0 ± 1.0 points, 5 seeds")
    assert (answer.verdict, answer.run) == ("supported", "06")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("0.05,dqas,random,5,0.02,0.03,0.1,,0.2", "undecided"),  # the interval holds 0
        ("0.05,dqas,random,5,0.02,0.01,0.03,,0.2", "undecided"),  # clear alone, not after Holm
        ("0.05,dqas,random,5,-0.02,0.01,0.001,,0.002", "contradicted"),
        ("0.05,dqas,random,2,0.02,,,,", "undecided"),  # two seeds have no interval
    ],
)
def test_verdict_of_a_difference(tmp_path, table, row, said):
    table.write_text(PAIRED + row + "\n")
    assert answers(CLAIM, PROFILES, tmp_path)[0].verdict == said


def test_part_switched_off_and_correlations(tmp_path, table):
    table.write_text("variant,n,difference,half,p_holm\nno bins,3,-0.03,0.01,0.01\n")
    off = Claim("bins pay", "06_paired_.*", {"variant": "no bins"}, "with bins", -1)
    assert answers(off, PROFILES, tmp_path)[0].results == ("with bins: +3.0 ± 1.0 points, 3 seeds",)
    table.write_text("question,method,other,correlation,low,high\nmethods,a,b,0.5,0.1,0.8\nmethods,a,c,0.4,-0.1,0.7\n")
    alike = Claim("alike", "06_paired_.*", {"question": "methods"}, "{method} and {other}")
    (answer,) = answers(alike, PROFILES, tmp_path)
    assert answer.results[0] == "a and b: rank correlation +0.50 (+0.10 to +0.80)"
    assert answer.verdict == "undecided"  # one of two


def test_no_table_no_answer(tmp_path, table):
    assert answers(CLAIM, PROFILES, tmp_path) == []
    table.write_text(PAIRED)
    assert answers(CLAIM, PROFILES, tmp_path) == []
    assert verdict([("", 1), ("", -1)]) == verdict([("", 1), ("", 0)]) == "undecided"
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)


def test_a_claim_against_all_the_images_is_paired_by_seed(tmp_path):
    path = tmp_path / "tables" / "tiny" / "06" / "06_trainings_cifar10.csv"
    path.parent.mkdir(parents=True)
    accuracies = {("full", 1.0): (0.80, 0.82, 0.81), ("dqas", 0.5): (0.77, 0.80, 0.78), ("dqas", 0.1): (0.7, 0.7, 0.7)}
    rows = [f"cifar10,net,{m},{r},{seed},{a[seed]},7" for (m, r), a in accuracies.items() for seed in range(3)]
    path.write_text("dataset,network,method,ratio,seed,accuracy,training_seconds\n" + "\n".join(rows) + "\n")
    profiles = [{"profile": "tiny", "runs": [{"name": "06", "files": {path.relative_to(tmp_path).as_posix(): ""}}]}]
    dqas, plus = (claim for claim in CLAIMS if claim.minus)
    (answer,) = answers(dqas, profiles, tmp_path)
    assert answers(plus, profiles, tmp_path) == []
    # differences of 3, 2 and 3 points: 4.303 x 0.577 / 1.732
    assert answer.results == ("50 %: -2.7 ± 1.4 points, 3 seeds",)
    assert answer.verdict == "contradicted"


def test_the_main_table_takes_the_gap_over_random_of_its_own_run_and_the_published_one(tmp_path):
    def listed(run, name, text):
        path = tmp_path / "tables" / "tiny" / run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return {"name": run, "files": {path.relative_to(tmp_path).as_posix(): ""}}

    head = "dataset,method,ratio,seed,network,accuracy,selection_seconds,training_seconds\n"

    def trained(*methods, n=3, shift=0.0):
        rows = [
            f"photos,{method},{ratio},{seed},net,{0.5 + shift + gain + 0.1 * ratio + seed / 100},{10 * (ratio < 0.1)},7"
            for method, gain in methods
            for ratio in (0.05, 0.1)
            for seed in range(n)
        ]
        return head + "\n".join(rows) + "\n"

    better, more = ("mine", 0.02), trained(("random", 0.0), ("mine", 0.03), n=5, shift=0.1)
    runs = [
        listed("small", "06_trainings_photos.csv", trained(("random", 0.0), better, ("other", -0.01))),
        listed("large", "06_trainings_photos.csv", more),
        listed("toy", "06_trainings_digits.csv", trained(("random", 0.0), better)),
        listed("tail", "06_trainings_photos-lt10.csv", trained(("random", 0.0), better)),
        listed(
            "08",
            "08_gaps.csv",
            "dataset,ratio,method,published (%),random (%),gap (points),ours (points),source\n"
            "photos,0.1,mine,90.0,87.0,3.0,not measured,somewhere\nphotos,0.2,rival,91.0,88.0,3.0,not measured,there\n",
        ),
    ]
    table = main_table([{"profile": "tiny", "runs": runs}], tmp_path)
    rows = {(row["ratio"], row["method"]): row for row in table}
    order = [f"{row['ratio']:g} {row['method']}" for row in table]
    assert order == ["0.05 mine", "0.05 random", "0.05 other", "0.1 mine", "0.1 random", "0.1 other", "0.2 rival"]
    mine, other = rows[0.1, "mine"], rows[0.1, "other"]
    assert (mine["run"], mine["seeds"], mine["n"], round(mine["difference"], 6)) == (
        "large",
        5,
        5,
        0.03,
    )  # the run with most seeds
    assert (other["run"], other["seeds"], round(other["difference"], 6)) == (
        "small",
        3,
        -0.01,
    )  # over the random of its own run
    assert mine["selection"] == 10  # of both ratios together
    assert mine["published"] == [(90.0, 3.0, "somewhere")]
    assert (rows[0.1, "random"]["difference"], rows[0.1, "random"]["half"]) == (0, 0)
    assert rows[0.2, "rival"] == {
        "dataset": "photos",
        "ratio": 0.2,
        "method": "rival",
        "published": [(91.0, 3.0, "there")],
    }
