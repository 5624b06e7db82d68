"""Claims: which rows answer, what is said of them, and the verdict."""

import pytest

from dqas_lib.reproduce.claims import CLAIMS, Claim, answers, verdict

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
