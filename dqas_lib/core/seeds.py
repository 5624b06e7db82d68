"""Random generators derived from one seed: each use (stage, class, bin ...) draws from its own stream.

Two uses never share a stream, so adding a draw in one place does not change another, and every bin of every class
draws different ranks. [ours]
"""

import hashlib

import numpy as np
import torch

from dqas_lib.core.checks import whole_number


def check_seed(seed: int) -> int:
    """The seed as an int; InputError unless it is a whole number >= 0."""
    return whole_number("seed", seed, 0)


def derive(seed: int, *use: str | int) -> int:
    """A 63-bit number that depends on the seed and on the use it is meant for ("bins", 3)."""
    text = "/".join([str(check_seed(seed)), *(str(part) for part in use)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *use: str | int) -> np.random.Generator:
    """NumPy generator of one use."""
    return np.random.default_rng(derive(seed, *use))


def torch_generator(seed: int, *use: str | int) -> torch.Generator:
    """PyTorch generator (CPU) of one use."""
    return torch.Generator().manual_seed(derive(seed, *use))
