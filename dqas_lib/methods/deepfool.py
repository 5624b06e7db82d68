"""DeepFool: the images that the smallest change of pixels carries over the decision boundary."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dqas_lib.core.checks import number, whole_number
from dqas_lib.methods.base import ScoreMethod, option, register
from dqas_lib.pool import Pool
from dqas_lib.training.networks import Network
from dqas_lib.training.train import threads, train

_BATCH = 256


@register
@dataclass(frozen=True)
class DeepFool(ScoreMethod, name="deepfool", needs=("network",)):
    """The smallest change of pixels changes its class [Ducoffe and Precioso 2018, arXiv:1802.09841; arXiv:1511.04599].

    Definition: the smallest L2 norm of a perturbation of the pixels that changes the network's prediction: from x, go
    to the nearest linearized boundary, |f_k - f_top| / |grad f_k - grad f_top|, until it changes. rivals: how many
    other classes are looked at, the likeliest first [ours: 4; DeepFool: all]; steps: at most so many; overshoot: way
    beyond the boundary, as a fraction. Needs: network. Cost: rivals backward passes per step and resisting image.
    """

    rivals: int = option(4, whole_number)
    steps: int = option(10, whole_number)
    overshoot: float = option(0.02, partial(number, low=0))

    def scores(self, pool: Pool) -> np.ndarray:
        """(N,) minus the norms in gray levels."""
        settings = {"rivals": self.rivals, "steps": self.steps, "overshoot": self.overshoot}
        device = torch.device(pool.setting.device)

        def compute() -> dict[str, np.ndarray]:
            images, norms = pool.images.images[pool.by_id], np.empty(len(pool.images))
            limits = (self.rivals, self.steps, self.overshoot)
            with threads(pool.setting.network, device):
                norms[pool.by_id] = perturbation_norms(pool.trained, images, *limits, device)
            return {"norm": norms}

        return -pool.stage("deepfool", settings, compute, (train, perturbation_norms))["norm"]


def perturbation_norms(
    network: Network, images: np.ndarray, rivals: int, steps: int, overshoot: float, device: str | torch.device = "cpu"
) -> np.ndarray:
    """(N,) L2 norms, in gray levels of 0 ... 255, of the perturbations that change the prediction of uint8 images.

    Infinite for a network of one class. An image that resists after `steps` steps gets the norm reached so far.
    """
    network.eval()
    batches = (torch.from_numpy(images[start : start + _BATCH]).to(device) for start in range(0, len(images), _BATCH))
    return np.concatenate([_of_batch(network, batch, rivals, steps, overshoot) for batch in batches])


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
            square, gap = slope.flatten(1).square().sum(dim=1).clamp_min(1e-20), lead[:, k].detach().abs()
            distance, scale = gap / square.sqrt(), (gap + 1e-6) / square
            nearer, best = distance < best, torch.fmin(distance, best)
            step = torch.where(nearer[:, None, None, None], scale[:, None, None, None] * slope, step)
        active = active[same]
        if not len(active):
            break
        moved[active] += step[same]
    return moved.flatten(1).norm(dim=1).double().cpu().numpy()
