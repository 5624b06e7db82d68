"""TODO."""

from dqas_lib.methods.dqas import DQAS

ABLATIONS: dict[str, DQAS] = {
    "dqas": DQAS(),
    "active off": DQAS(active=False),
    "active off, counts by curves": DQAS(active=False, initialization="curves"),
    "first share by curves": DQAS(initialization="curves"),
    "counts equal": DQAS(counts="equal"),
    "counts shuffled": DQAS(shuffle_counts=True),
    "counts free": DQAS(counts="free"),
    "counts by ridge": DQAS(counts="ridge"),
    "samples random": DQAS(samples="random"),
    "samples by gradient": DQAS(samples="gradient"),
    "no diversity": DQAS(diversity=0.0),
    "first share at random": DQAS(draw="random"),
}
"""What each ingredient is worth: one switch at a time, by its name in tables."""
