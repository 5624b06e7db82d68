"""Steps and schedule: torch's functional optimizers as `train` calls them, against the torch.optim classes."""

import numpy as np
import pytest
import torch

from dqas_lib.training.recipes import schedule
from dqas_lib.training.train import clipped_adamw, momentum_sgd


def test_schedule_rises_linearly_and_falls_to_zero_by_a_cosine():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert schedule(0, 10, 0.0) == 1.0


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_gives_the_numbers_of_torchs_own(nesterov):
    rng = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, generator=rng), torch.randn(5, generator=rng)]
    ours = [torch.nn.Parameter(value.clone()) for value in start]
    theirs = [torch.nn.Parameter(value.clone()) for value in start]
    update = momentum_sgd(ours, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    reference = torch.optim.SGD(theirs, lr=1.0, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
    for lr in (0.1, 0.05, 0.2, 0.01):
        for own, other in zip(ours, theirs, strict=True):
            own.grad = torch.sin(own.detach() * 3)
            other.grad = torch.sin(other.detach() * 3)
        update(lr)
        reference.param_groups[0]["lr"] = lr
        reference.step()
        assert all(parameter.grad is None for parameter in ours)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)


def test_adamw_gives_the_numbers_of_torchs_own():
    def run(make, step):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 2))
        state = make(net)
        for i in range(20):
            x = torch.randn(8, 5) * (1 + 30 * (i % 3))  # some gradients are clipped, some are not
            net(x).square().mean().backward()
            step(net, state, 0.01 * (1 + i % 4))
        return torch.cat([p.detach().ravel() for p in net.parameters()])

    def torchs(net):
        groups = [{"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": 0.1}]
        groups += [{"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, betas=(0.9, 0.95))

    def torchs_step(net, optimizer, lr):
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()

    ours = run(lambda net: clipped_adamw(list(net.parameters()), weight_decay=0.1), lambda _, update, lr: update(lr))
    np.testing.assert_allclose(ours, run(torchs, torchs_step), rtol=1e-4, atol=1e-6)
