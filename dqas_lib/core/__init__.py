"""The ground floor: errors, checks, seeds, devices, files, digests, registries, and the store of stage results."""

__version__ = "0.2.0"
