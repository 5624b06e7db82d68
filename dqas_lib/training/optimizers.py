"""Optimizers: SGD with momentum, AdamW, and the schedule of their learning rate.

Written out because making any torch.optim optimizer imports PyTorch's compiler, which costs seconds in every new
process, as long as a whole training of a small network. The tests hold them to torch's own numbers.
"""

import math

import torch
from torch import Tensor, nn


class MomentumSGD:
    """SGD with (Nesterov) momentum and weight decay on all parameters, the same numbers as torch.optim.SGD."""

    def __init__(self, parameters: list[nn.Parameter], *, momentum: float, weight_decay: float, nesterov: bool) -> None:
        self.parameters, self.momentum, self.weight_decay = parameters, momentum, weight_decay
        self.nesterov = nesterov
        self.buffers: list[Tensor] | None = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters against their gradients and drop the gradients."""
        moves = torch._foreach_add([p.grad for p in self.parameters], self.parameters, alpha=self.weight_decay)
        if self.buffers is None:
            self.buffers = [move.clone() for move in moves]
        else:
            torch._foreach_mul_(self.buffers, self.momentum)
            torch._foreach_add_(self.buffers, moves)
        if self.nesterov:
            torch._foreach_add_(moves, self.buffers, alpha=self.momentum)
        torch._foreach_add_(self.parameters, moves if self.nesterov else self.buffers, alpha=-lr)
        for parameter in self.parameters:
            parameter.grad = None


class AdamW:
    """AdamW, the same numbers as torch.optim.AdamW after clipping the gradients to a joint length of 1.

    Weight decay on matrices only, betas 0.9 and 0.95 [MAE, Table 8].
    """

    def __init__(self, parameters: list[nn.Parameter], *, weight_decay: float) -> None:
        self.parameters = parameters
        self.matrices = [p for p in parameters if p.ndim > 1]
        self.weight_decay, self.betas, self.steps = weight_decay, (0.9, 0.95), 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters against their gradients and drop the gradients."""
        gradients = [p.grad for p in self.parameters]
        length = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (1 / (length + 1e-6)).clamp(max=1.0))
        self.steps += 1
        one, two = self.betas
        torch._foreach_mul_(self.matrices, 1 - lr * self.weight_decay)
        torch._foreach_lerp_(self.first, gradients, 1 - one)
        torch._foreach_mul_(self.second, two)
        torch._foreach_addcmul_(self.second, gradients, gradients, value=1 - two)
        below = torch._foreach_sqrt(self.second)
        torch._foreach_div_(below, math.sqrt(1 - two**self.steps))
        torch._foreach_add_(below, 1e-8)
        torch._foreach_addcdiv_(self.parameters, self.first, below, value=-lr / (1 - one**self.steps))
        for parameter in self.parameters:
            parameter.grad = None


def schedule(step: int, total: int, warmup: float) -> float:
    """Factor on the peak learning rate: linear up over `warmup` of the steps, then half a cosine to zero."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1)))
