"""Devices: the CPU, or a CUDA card when PyTorch sees one."""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dqas_lib.core.errors import InputError


def check_device(device: str | torch.device) -> torch.device:
    """The device; "auto" is CUDA where there is one. InputError when this machine has none of that kind."""
    try:
        resolved = torch.device(default_device() if device == "auto" else device)
        if resolved.type not in ("cpu", "cuda"):
            raise TypeError
    except (RuntimeError, TypeError):
        raise InputError(f"unknown device {device!r}: give 'cpu', 'cuda' or 'auto'") from None
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {str(device)!r} was asked for, but PyTorch sees no CUDA device: give device='cpu'")
    return resolved


def default_device() -> str:
    """Name of the device to use by default: "cuda" where PyTorch sees one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.cache
def native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers by instructions of its own (AVX512-BF16, AMX)."""
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older ones cannot tell
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On CUDA: kernels that give equal bits when they run again, and float32 products in float32, not in TF32.

    cuDNN takes its deterministic convolutions and does not choose by timing; attention is computed by plain products,
    because the gradients of the fused one are summed in any order.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            stack.enter_context(cudnn)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
