"""Contrastive embedding: a network trained, without labels, to tell two views of an image from views of others.

NT-Xent loss (SimCLR, Chen et al., ICML 2020): two random crops (mirrored where the images may be, with other brightness
and contrast) of every image of a batch; the cosine of an image's two views, over a temperature, is to be larger than
that of all other pairs.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dqas_lib.core.seeds import derive, torch_generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.training.features import extract
from dqas_lib.training.networks import Network, make_network
from dqas_lib.training.setting import Setting
from dqas_lib.training.train import border, crop, draw_view, held, momentum_sgd, threads


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """NT-Xent of (B, d) embeddings of the two views: mean over the 2B views of -log softmax at the partner."""
    z = functional.normalize(torch.cat([first, second]), dim=1)
    likeness = z @ z.T / temperature
    likeness.fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return functional.cross_entropy(likeness, partner)


def contrastive_embedding(
    images: ImageSet, *, setting: Setting, seed: int, steps: int = 200, batch_size: int = 64, dim: int = 64
) -> np.ndarray:
    """(N, dim) unit embeddings of the images: features and a two-layer head after `steps` contrastive steps."""
    device = torch.device(setting.device)
    with threads(setting.network, device):
        model = make_network(setting.network, images.n_classes, images.size, derive(seed, "contrastive"))
        model.normalize_by(images)
        width = model.head.in_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "contrastive head"))
            head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        model, head = model.to(device), head.to(device)
        if len(images) > 1:
            _fit(model, head, images, seed, device, steps, min(batch_size, len(images)))
        with torch.inference_mode():
            features = torch.from_numpy(extract(model, images.images, device=device)).to(device)
            return functional.normalize(head(features), dim=1).cpu().numpy()


def _fit(
    model: Network, head: nn.Module, images: ImageSet, seed: int, device: torch.device, steps: int, batch: int
) -> None:
    pad = border(images.size, 0.125)
    pixels = held(images.images, images.size, device)
    rng = torch_generator(seed, "contrastive batches")
    weights = [*model.stages.parameters(), *head.parameters()]
    update = momentum_sgd(weights, momentum=0.9, weight_decay=1e-4, nesterov=False)
    model.train()
    for _ in range(steps):
        picks = torch.randperm(len(images), generator=rng)[:batch].to(device)
        views = []
        for _ in range(2):
            offsets, flips = (drawn.to(device) for drawn in draw_view(len(picks), pad, images.mirror, rng))
            views.append(_jitter(crop(pixels, picks, offsets, flips, images.size, pad), rng))
        first, second = head(model.features(torch.cat(views))).chunk(2)
        contrastive_loss(first, second).backward()
        update(0.05)


def _jitter(batch: Tensor, rng: torch.Generator) -> Tensor:
    """Contrast and brightness changed by up to 40 %, image by image."""
    change = (0.6 + 0.8 * torch.rand(2, len(batch), 1, 1, 1, generator=rng)).to(batch.device)
    x = batch.float()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return ((x - mean) * change[0] + mean * change[1]).clamp(0, 255)
