"""Selection methods, in one registry (`METHODS`), in the order in which tables list them.

base says what a method is and holds what many share; greedy holds the greedy search that many use.
"""

# ruff: noqa: I001 - the order of the imports is the order of the registry

from dqas_lib.methods.base import METHODS, Choice, GroupMethod, Method, ScoreMethod, get_method, options, register
from dqas_lib.methods.dqas import DQAS
from dqas_lib.methods.dq import DQ
from dqas_lib.methods.random import Random
from dqas_lib.methods.geometry import ContextualDiversity, Herding, KCenter
from dqas_lib.methods.uncertainty import Entropy, LeastConfidence, Margin
from dqas_lib.methods.difficulty import EL2N, Forgetting, GraNd
from dqas_lib.methods.cal import Cal
from dqas_lib.methods.deepfool import DeepFool
from dqas_lib.methods.gradient_matching import Craig, Glister, GradMatch
from dqas_lib.methods.submodular import FacilityLocation, GraphCut
from dqas_lib.methods.dqas_plus import DQASPlus
from dqas_lib.methods.ccs import CCS
from dqas_lib.methods.adq import ADQ
from dqas_lib.methods.bgfdq import BGFDQ
from dqas_lib.methods.controls import BinsRandom, ShuffledCounts
from dqas_lib.pool import Pool

__all__ = [
    "ADQ", "BGFDQ", "CCS", "DQ", "DQAS", "EL2N", "METHODS", "BinsRandom", "Cal", "Choice", "ContextualDiversity",
    "Craig", "DQASPlus", "DeepFool", "Entropy", "FacilityLocation", "Forgetting", "Glister", "GraNd", "GradMatch",
    "GraphCut", "GroupMethod", "Herding", "KCenter", "LeastConfidence", "Margin", "Method", "Pool", "Random",
    "ScoreMethod", "ShuffledCounts", "get_method", "options", "register",
]  # fmt: skip
