"""Ablations of DQAS, one part switched off or put in place of another, and candidates for DQAS-plus, by their names."""

from dataclasses import replace

from dqas_lib.active.counts import ErrorCounts, FreeCounts, GainCounts
from dqas_lib.active.estimators import Gradient, Margin, Retrain, Ridge, TrueMargin
from dqas_lib.active.round import Rounds
from dqas_lib.budget.initialization import ByError
from dqas_lib.methods import DQ, DQASPlus, FacilityLocation, Herding, Method
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

LOOK_AHEAD = DQAS().without("patchify", "bins", "initialization", "counts")
CANDIDATES: dict[str, Method] = {
    # what was tried for `dqas-plus`, and what it is measured against
    "dq": DQ(),
    "herding": Herding(),
    "facility location": FacilityLocation(),
    "window 30/10, random": DQASPlus(0.3, 0.1, None),
    "window 30/10, herding": DQASPlus(0.3, 0.1),
    "window 15/25, herding": DQASPlus(0.15, 0.25),
    "window 50/5, herding": DQASPlus(0.5, 0.05),
    "window 50/5, facility location": DQASPlus(0.5, 0.05, FacilityLocation()),
    "window by class and ratio, random": DQASPlus(inside=None),
    "window by class and ratio, facility location": DQASPlus(inside=FacilityLocation()),
    "dqas-plus": DQASPlus(),
    "margin rounds": replace(LOOK_AHEAD, samples=Margin()),
    "look-ahead rounds": LOOK_AHEAD,
    "look-ahead rounds, two learners": replace(LOOK_AHEAD, rounds=Rounds(learners=2)),
    "dqas": DQAS(),
}
