"""A pretended CUDA card: tensors without data that know their device, and a count of what a real card would wait for.

Under FakeTensorMode every operation checks shapes and devices and computes nothing, so the CUDA path of the library can
be walked on any machine. What needs a card or real numbers is stood in for: a backward pass gives every weight a
gradient, a number asked of a tensor is 1, and an array taken from one is full of ones.
"""

from collections import Counter
from contextlib import contextmanager

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dqas_lib.compressed import read
from dqas_lib.training import setting

aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
COUNTED = ("nonzero", "_unique2", "masked_select", "bincount")  # their results' sizes are known to the device alone


class Card(TorchDispatchMode):
    """Counts what crosses between host and device: `waits` by operation, `uploads` of so many bytes each."""

    def __init__(self):
        super().__init__()
        self.waits, self.uploads = Counter(), []

    def clear(self):
        """Forget what was counted so far."""
        self.waits.clear()
        self.uploads.clear()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.name().removeprefix("aten::").split(".")[0]
        there = bool(args) and isinstance(args[0], torch.Tensor) and args[0].is_cuda
        if func in (aten._local_scalar_dense.default, aten.item.default):  # the latter in inference mode
            self.waits["item"] += there
            kind = args[0].dtype
            return True if kind is torch.bool else 1 if not kind.is_floating_point else 1.0
        if name in COUNTED:
            self.waits[name] += there
            if name == "bincount":
                return torch.ones(256, dtype=torch.int64)  # levels of a channel
        result = func(*args, **kwargs)
        if func in COPIES and isinstance(result, torch.Tensor):
            source = args[1] if func is aten.copy_.default else args[0]
            if source.is_cuda and not result.is_cuda:
                self.waits["copy to the host"] += 1
            elif result.is_cuda and not source.is_cuda:
                self.uploads.append(source.numel() * source.element_size())
        return result


def _backward(loss):
    """Stand in for a backward pass: every weight that the loss depends on gets a gradient on its own device."""
    assert loss.ndim == 0
    assert loss.requires_grad
    ahead, seen = [loss.grad_fn], set()
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            assert node.variable.device == loss.device
            node.variable.grad = torch.empty_like(node.variable)
        ahead += [following for following, _ in node.next_functions]


def _gradient(output, inputs, **options):
    several = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
    assert all(one.device == output.device for one in several)
    return tuple(torch.zeros_like(one) for one in several)


def _apply(module, change, recurse=True):
    """`Module._apply` without `parameter.data = ...`, which tensors without data refuse."""
    for child in module.children():
        child._apply(change)
    for name, weight in module._parameters.items():
        if weight is not None:
            module._parameters[name] = torch.nn.Parameter(change(weight.detach()), weight.requires_grad)
    for name, tensor in module._buffers.items():
        if tensor is not None:
            module._buffers[name] = change(tensor)
    return module


@contextmanager
def pretended_card(monkeypatch):
    """Device "cuda" can be asked for inside; gives the `Card` that counts."""
    numpy = torch.Tensor.numpy

    def ones(tensor, *arguments, **options):
        if not isinstance(tensor, FakeTensor):
            return numpy(tensor, *arguments, **options)
        assert not tensor.is_cuda, "numpy() of a tensor on the card"
        return np.ones(tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))

    with monkeypatch.context() as patched:
        for module in (setting, read):
            patched.setattr(module, "check_device", torch.device)
        patched.setattr(torch.nn.Module, "_apply", _apply)
        patched.setattr(torch.Tensor, "numpy", ones)
        patched.setattr(torch.Tensor, "backward", _backward)
        patched.setattr(torch.autograd, "grad", _gradient)
        with FakeTensorMode(allow_non_fake_inputs=True), Card() as card:
            yield card
