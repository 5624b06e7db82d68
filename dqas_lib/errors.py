"""The library's own errors. Every message says what was given, what was expected and what to do."""


class DqasError(Exception):
    """Base class of every error this library raises on purpose."""


class InputError(DqasError, ValueError):
    """A value given by the caller cannot be used (a ratio of 1.5, an unknown method)."""


class DataError(DqasError):
    """A file or data set is missing, damaged or not what it claims to be."""


class RunError(DqasError):
    """A notebook run of a profile failed, or cannot start."""
