"""Ablations of DQAS: one part switched off or put in place of another, by its name in tables."""

from dqas_lib.active.counts import ErrorCounts, FreeCounts, GainCounts
from dqas_lib.active.estimators import Gradient, Margin, Retrain, Ridge, TrueMargin
from dqas_lib.budget.initialization import ByError
from dqas_lib.methods.dqas import DQAS

ABLATIONS: dict[str, DQAS] = {
    # one part switched off
    "no patchify": DQAS().without("patchify"),
    "no bins": DQAS().without("bins"),
    "no class-wise initialization": DQAS().without("initialization"),
    "no active sampling": DQAS().without("rounds"),
    "equal counts": DQAS().without("counts"),
    "random samples": DQAS().without("samples"),
    # one part put in place of another
    "patchify last": DQAS(patchify="last"),
    "error initialization": DQAS(initialization=ByError()),
    "free counts": DQAS(counts=FreeCounts()),
    "error counts": DQAS(counts=ErrorCounts()),
    "gradient counts": DQAS(counts=GainCounts(Gradient())),
    "retrain counts": DQAS(counts=GainCounts(Retrain())),
    "shuffled counts": DQAS(shuffle_counts=True),
    "margin samples": DQAS(samples=Margin()),
    "true-margin samples": DQAS(samples=TrueMargin()),
    "ridge samples": DQAS(samples=Ridge()),
    "gradient samples": DQAS(samples=Gradient()),
    "no spreading": DQAS(diversity=0.0),
}
