"""DeepFool: the images that the smallest change of pixels carries over the decision boundary."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dqas_lib.core.errors import InputError
from dqas_lib.methods.base import Choice, by_score, check_balance, register
from dqas_lib.pool import Pool
from dqas_lib.training.networks import Network
from dqas_lib.training.train import threads, train


@register
@dataclass(frozen=True)
class DeepFool:
    """DeepFool. [Ducoffe and Precioso 2018; Moosavi-Dezfooli et al., CVPR 2016, Algorithm 2]

    Definition: the smallest L2 norm of a perturbation of the pixels that changes the network's prediction. From x, go
    to the nearest of the linearised boundaries, |f_k - f_top| / |grad f_k - grad f_top|, until the prediction
    changes. rivals: how many other classes are looked at, the likeliest first [ours: 4; DeepFool: all]; steps: at most
    so many. Needs: network. Cost: (rivals + 1) backward passes a step over the images that still resist.
    """

    name: ClassVar[str] = "deepfool"
    needs: ClassVar[tuple[str, ...]] = ("network",)
    balance: str = "proportional"
    rivals: int = 4
    steps: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        check_balance(self.balance)
        if min(self.rivals, self.steps) < 1 or self.overshoot < 0:
            raise InputError(
                f"rivals and steps must be at least 1, overshoot >= 0; "
                f"got {self.rivals!r}, {self.steps!r}, {self.overshoot!r}"
            )

    def select(self, pool: Pool, budget: int) -> Choice:
        """See `Method.select`. Trace: score (N,), minus the norm in gray levels."""
        pool.check(self)

        def compute() -> dict[str, np.ndarray]:
            norms = np.empty(len(pool.images))
            with threads(pool.setting.network, torch.device(pool.setting.device)):
                norms[pool.by_id] = perturbation_norms(
                    pool.trained,
                    pool.images.images[pool.by_id],
                    rivals=self.rivals,
                    steps=self.steps,
                    overshoot=self.overshoot,
                    device=pool.setting.device,
                )
            return {"norm": norms}

        settings = {"rivals": self.rivals, "steps": self.steps, "overshoot": self.overshoot}
        scores = -pool.stage("deepfool", settings, compute, (train, perturbation_norms))["norm"]
        return Choice(by_score(pool, scores, budget, self.balance), trace={"score": scores})


def perturbation_norms(
    network: Network,
    images: np.ndarray,
    *,
    rivals: int,
    steps: int,
    overshoot: float,
    device: str = "cpu",
    batch_size: int = 256,
) -> np.ndarray:
    """(N,) L2 norms, in gray levels of 0 ... 255, of the perturbations that change the prediction of uint8 images.

    Infinite for a network of one class. An image that resists after `steps` steps gets the norm reached so far.
    """
    network.eval()
    frozen = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        blocks = [
            _of_batch(
                network, torch.from_numpy(images[start : start + batch_size]).to(device), rivals, steps, overshoot
            )
            for start in range(0, len(images), batch_size)
        ]
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    return np.concatenate(blocks)


def _of_batch(network: Network, images: Tensor, rivals: int, steps: int, overshoot: float) -> np.ndarray:
    x = images.float()
    moved = torch.zeros_like(x)
    with torch.no_grad():
        order = network(x).argsort(dim=1, descending=True, stable=True)
    if order.shape[1] < 2:
        return np.full(len(x), np.inf)
    top, others = order[:, :1], order[:, 1 : rivals + 1]
    active = torch.arange(len(x), device=x.device)
    for _ in range(steps):
        point = (x[active] + (1 + overshoot) * moved[active]).requires_grad_(True)
        logits = network(point)
        same = logits.argmax(dim=1) == top[active, 0]
        lead = logits.gather(1, others[active]) - logits.gather(1, top[active])  # f_k - f_top <= 0
        best = torch.full((len(active),), torch.inf, device=x.device)
        step = torch.zeros_like(point)
        for k in range(lead.shape[1]):
            (slope,) = torch.autograd.grad(lead[:, k].sum(), point, retain_graph=k + 1 < lead.shape[1])
            square = slope.flatten(1).square().sum(dim=1).clamp_min(1e-20)
            distance = lead[:, k].detach().abs() / square.sqrt()
            nearer = distance < best
            best = torch.where(nearer, distance, best)
            scale = (lead[:, k].detach().abs() + 1e-6) / square
            step = torch.where(nearer[:, None, None, None], scale[:, None, None, None] * slope, step)
        active = active[same]
        if not len(active):
            break
        moved[active] += step[same]
    return moved.flatten(1).norm(dim=1).double().cpu().numpy()
