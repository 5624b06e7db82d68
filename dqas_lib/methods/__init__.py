"""Selection methods: one file a method, one registry."""

from dqas_lib.methods.adq import ADQ
from dqas_lib.methods.base import METHODS, Choice, Method, get_method, options, register
from dqas_lib.methods.bgfdq import BGFDQ
from dqas_lib.methods.cal import Cal
from dqas_lib.methods.ccs import CCS
from dqas_lib.methods.contextual_diversity import ContextualDiversity
from dqas_lib.methods.controls import BinsRandom, ShuffledCounts
from dqas_lib.methods.craig import Craig
from dqas_lib.methods.deepfool import DeepFool
from dqas_lib.methods.dq import DQ
from dqas_lib.methods.dqas import DQAS
from dqas_lib.methods.el2n import EL2N
from dqas_lib.methods.entropy import Entropy
from dqas_lib.methods.facility_location import FacilityLocation
from dqas_lib.methods.forgetting import Forgetting
from dqas_lib.methods.glister import Glister
from dqas_lib.methods.gradmatch import GradMatch
from dqas_lib.methods.grand import GraNd
from dqas_lib.methods.graph_cut import GraphCut
from dqas_lib.methods.herding import Herding
from dqas_lib.methods.k_center import KCenter
from dqas_lib.methods.least_confidence import LeastConfidence
from dqas_lib.methods.margin import Margin
from dqas_lib.methods.random import Random
from dqas_lib.pool import Pool

__all__ = [
    "ADQ",
    "BGFDQ",
    "CCS",
    "DQ",
    "DQAS",
    "EL2N",
    "METHODS",
    "BinsRandom",
    "Cal",
    "Choice",
    "ContextualDiversity",
    "Craig",
    "DeepFool",
    "Entropy",
    "FacilityLocation",
    "Forgetting",
    "Glister",
    "GraNd",
    "GradMatch",
    "GraphCut",
    "Herding",
    "KCenter",
    "LeastConfidence",
    "Margin",
    "Method",
    "Random",
    "ShuffledCounts",
    "Pool",
    "get_method",
    "options",
    "register",
]
