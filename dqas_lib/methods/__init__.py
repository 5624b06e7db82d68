"""Selection methods: one file a method, one registry."""

from dqas_lib.errors import InputError
from dqas_lib.methods.base import Choice, Method, Workbench, options
from dqas_lib.methods.dq import DQ
from dqas_lib.methods.dqas import DQAS
from dqas_lib.methods.uniform import Random

METHODS: dict[str, type] = {cls.name: cls for cls in (DQAS, DQ, Random)}


def get_method(method: "str | Method") -> Method:
    """A method by its registered name, with its default options, or the given one; InputError lists the names."""
    if not isinstance(method, str):
        if type(method) not in METHODS.values():
            raise InputError(f"not a selection method: {method!r}; the known ones are {', '.join(METHODS)}")
        return method
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: the known ones are {', '.join(METHODS)}")
    return METHODS[method]()


__all__ = ["DQ", "DQAS", "METHODS", "Choice", "Method", "Random", "Workbench", "get_method", "options"]
