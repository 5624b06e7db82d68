"""Ablations of DQAS: one part taken away or put in place of another, by its name in tables."""

from dqas_lib.active.counts import EqualCounts, FreeCounts, GainCounts
from dqas_lib.active.estimators import Gradient, RandomSamples, Retrain, Ridge, TrueMargin
from dqas_lib.budget.initialization import ByError, Curves
from dqas_lib.methods.dqas import DQAS

ABLATIONS: dict[str, DQAS] = {
    "no active sampling": DQAS(rounds=None),
    "curve initialization": DQAS(initialization=Curves()),
    "error initialization": DQAS(initialization=ByError()),
    "no bins": DQAS(bins=None),
    "equal counts": DQAS(counts=EqualCounts()),
    "free counts": DQAS(counts=FreeCounts()),
    "shuffled counts": DQAS(shuffle_counts=True),
    "random samples": DQAS(samples=RandomSamples()),
    "no spreading": DQAS(diversity=0.0),
    "true-margin samples": DQAS(samples=TrueMargin()),
    "ridge samples": DQAS(samples=Ridge()),
    "gradient samples": DQAS(samples=Gradient()),
    "ridge counts": DQAS(counts=GainCounts(Ridge())),
    "gradient counts": DQAS(counts=GainCounts(Gradient())),
    "retrain counts": DQAS(counts=GainCounts(Retrain())),
}
