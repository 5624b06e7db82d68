"""The library's own errors. Every message says what was given, what was expected and what to do."""

import os
import traceback


class DqasError(Exception):
    """Base class of every error this library raises on purpose.

    Notebooks and the command line show it as one line; DQAS_DEBUG=1 in the environment (`--debug`) adds the traceback.
    """

    def one_line(self) -> str:
        """Kind and message on one line."""
        return " ".join(f"{type(self).__name__}: {self}".split())

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in place of a traceback."""
        if os.environ.get("DQAS_DEBUG", "0") not in ("", "0"):
            return "".join(traceback.format_exception(self)).splitlines()
        return [self.one_line()]


class InputError(DqasError, ValueError):
    """A value given by the caller cannot be used (a ratio of 1.5, an unknown method)."""


class DataError(DqasError):
    """A file or data set is missing, damaged or not what it claims to be."""


class RunError(DqasError):
    """A notebook run of a profile failed, or cannot start."""


def reason_of(error: BaseException) -> str:
    """What a foreign error says, on one line of at most 200 characters; its kind where it says nothing."""
    said = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return said or type(error).__name__
