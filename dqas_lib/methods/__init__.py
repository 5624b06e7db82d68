"""Selection methods: one file a method, one registry."""

from dqas_lib.errors import InputError
from dqas_lib.methods.adq import ADQ
from dqas_lib.methods.base import Choice, Method, Workbench, options
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
from dqas_lib.methods.uniform import Random

METHODS: dict[str, type] = {
    cls.name: cls
    for cls in (
        DQAS,
        DQ,
        Random,
        Herding,
        KCenter,
        ContextualDiversity,
        LeastConfidence,
        Entropy,
        Margin,
        Forgetting,
        GraNd,
        EL2N,
        Cal,
        DeepFool,
        Craig,
        GradMatch,
        Glister,
        FacilityLocation,
        GraphCut,
        CCS,
        ADQ,
        BGFDQ,
        BinsRandom,
        ShuffledCounts,
    )
}


def get_method(method: "str | Method") -> Method:
    """A method by its registered name, with its default options, or the given one; InputError lists the names."""
    if not isinstance(method, str):
        if type(method) not in METHODS.values():
            raise InputError(f"not a selection method: {method!r}; the known ones are {', '.join(METHODS)}")
        return method
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: the known ones are {', '.join(METHODS)}")
    return METHODS[method]()


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
    "Workbench",
    "get_method",
    "options",
]
