"""Networks, by name in `NETWORKS`: each a `Network` with `feature_map()`, `features()` and a linear `head`.

Every network takes uint8 (or 0...255 float) images (B, H, W, 3) and normalizes them itself, so that what was trained
and what is evaluated, explained or stored can never disagree about normalization. A (B, H, W, 3) tensor seen as
(B, 3, H, W) is already in channels_last memory order, the fast one for convolutions.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from dqas_lib.core.digests import digest, is_ours
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.core.seeds import derive
from dqas_lib.data.image_set import ImageSet


class Network(nn.Module):
    """Stages that give a map of features, mean pooling, linear head: so Grad-CAM is a closed form, gradients factor.

    precision: Of the stages' products where images are looked at on a GPU: that of the recipe of its training.
    """

    mean: Tensor
    std: Tensor
    precision: str = "auto"

    def __init__(self, stages: nn.Module, dim: int, n_classes: int) -> None:
        super().__init__()
        self.stages = stages
        self.head = nn.Linear(dim, n_classes)
        self.register_buffer("mean", torch.full((3,), 127.5))
        self.register_buffer("std", torch.full((3,), 64.0))

    def normalize_by(self, images: ImageSet) -> None:
        """Take channel means and deviations from training images."""
        levels = np.arange(256)
        for channel, count in enumerate(images.level_counts):
            mean = self.mean[channel] = (count * levels).sum() / count.sum()
            self.std[channel] = max(((count * (levels - mean) ** 2).sum() / count.sum()) ** 0.5, 1.0)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) images -> (B, d, h, w) activations of the last convolutional stage."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        return self.stages(x.permute(0, 3, 1, 2))

    def features(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) images -> (B, d) penultimate activations: the pooled feature map."""
        return self.feature_map(images).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) images -> (B, C) logits."""
        return self.head(self.features(images))


def _small_cnn(n_classes: int, size: int) -> Network:
    """For CPUs: three 3x3 convolutions, each halving the side until 2 to 4 pixels are left, pooled at once [ours]."""
    layers: list[nn.Module] = []
    inputs, side = 3, size
    for outputs in (24, 48, 96):
        layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False))
        if side > 3:
            layers.append(nn.MaxPool2d(2))
            side //= 2
        layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return Network(nn.Sequential(*layers), 96, n_classes)


class _Residual(nn.Module):
    """x + two 3x3 convolutions of x, each with batch normalization and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_convolution(width, width), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def _convolution(inputs: int, outputs: int, *, pool: bool = False) -> list[nn.Module]:
    """A 3x3 convolution, max-pooled before batch normalization and ReLU, which have less to do then."""
    between: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *between, nn.BatchNorm2d(outputs), nn.ReLU()]


def _resnet9(n_classes: int, size: int) -> Network:
    """ResNet-9 of width 16 [ours; after the DAWNBench networks]: 24 M multiplications for an image of 32 px.

    Two residual blocks, and three max-pools, or a fourth at once from 48 px on.
    """
    stages = [
        *_convolution(3, 16, pool=size >= 48),
        *_convolution(16, 32, pool=True),
        _Residual(32),
        *_convolution(32, 64, pool=True),
        *_convolution(64, 128, pool=True),
        _Residual(128),
    ]
    return Network(nn.Sequential(*stages), 128, n_classes)


def _resnet(name: str, n_classes: int, size: int) -> Network:
    """A torchvision ResNet with a 3x3 stem and no max-pool, for 32 and 64 px images [summary: ResNet-18]."""
    from torchvision import models  # it loads PyTorch's compiler

    net = getattr(models, name)()
    stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    stages = nn.Sequential(stem, net.bn1, nn.ReLU(inplace=True), net.layer1, net.layer2, net.layer3, net.layer4)
    return Network(stages, net.fc.in_features, n_classes)


def _vgg16(n_classes: int, size: int) -> Network:
    """The 13 convolutions of VGG-16 with batch normalization; max-pools that would leave no pixel are left out."""
    from torchvision.models import vgg16_bn

    layers, pools = [], 0
    for layer in vgg16_bn().features:
        pools += isinstance(layer, nn.MaxPool2d)
        if not isinstance(layer, nn.MaxPool2d) or size >> pools:
            layers.append(layer)
    return Network(nn.Sequential(*layers), 512, n_classes)


def sincos_positions(grid: int, width: int) -> Tensor:
    """(grid * grid, width) fixed sine-cosine positions: half for the row, half for the column [MAE]."""
    if width % 4:
        raise InputError(f"the width of a transformer must be a multiple of 4; got {width}")
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    side = torch.cat([angle.sin(), angle.cos()], dim=1)
    return torch.cat([side.repeat_interleave(grid, 0), side.repeat(grid, 1)], dim=1).float()


class _TokenStages(nn.Module):
    """(B, 3, H, W) images -> (B, width, h, w) normalized tokens of a pre-norm transformer encoder."""

    def __init__(self, size: int, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, stride=patch)
        self.register_buffer("positions", sincos_positions(size // patch, width), persistent=False)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(block, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embed(x)
        tokens = self.encoder(embedded.flatten(2).transpose(1, 2) + self.positions)
        return tokens.transpose(1, 2).unflatten(2, embedded.shape[2:])


def _small_vit(n_classes: int, size: int) -> Network:
    """8 x 8 patches, 6 blocks of ViT-Tiny's width; averaged tokens, no class token [ours; Beyer et al., 2022]."""
    if size % 8:
        raise InputError(f"small_vit cuts images into 8 x 8 patches: their side must be a multiple of 8; got {size}")
    return Network(_TokenStages(size, size // 8, width=192, depth=6, heads=3), 192, n_classes)


@dataclass(frozen=True)
class Architecture:
    """A network that can be asked for by name.

    Args:
        build: (classes, side of the images in pixels) -> a `Network` with freshly drawn weights.
        threads: Number of torch threads it is fastest with on a CPU; None: as many as there are.
        adam_lr: Peak learning rate of AdamW, for a network that is not trained by the recipe's SGD.
        smallest_side: Of images it can take, in pixels; None: it takes images of the side it was built for only.
    """

    name: str
    build: Callable[[int, int], Network]
    purpose: str
    threads: int | None = None
    adam_lr: float | None = None
    smallest_side: int | None = 1


NETWORKS: Registry[Architecture] = Registry("network")
for _architecture in (
    Architecture("small_cnn", _small_cnn, "small convolutional network for CPUs, 8 to 64 px", threads=1),
    Architecture("resnet9", _resnet9, "ResNet-9 of width 16 for CPUs, 16 to 64 px", threads=1, smallest_side=8),
    Architecture("resnet18", partial(_resnet, "resnet18"), "ResNet-18 with a 3x3 stem, the field's standard, for GPUs"),
    Architecture("resnet50", partial(_resnet, "resnet50"), "ResNet-50 with a 3x3 stem, for GPUs: cross-architecture"),
    Architecture("vgg16", _vgg16, "VGG-16 with batch normalization, for GPUs: cross-architecture"),
    Architecture(
        "small_vit",
        _small_vit,
        "small vision transformer, for GPUs: cross-architecture",
        adam_lr=1e-3,
        smallest_side=None,
    ),
):
    NETWORKS.register(_architecture)


def identity(name: str) -> str:
    """What names a network in store keys: its name, and for one from outside the library its builder's source, too."""
    build = NETWORKS[name].build
    if is_ours(getattr(build, "func", build)):
        return name
    try:
        source = inspect.getsource(build)
    except (OSError, TypeError):  # typed into a prompt: no other process can know what it does
        source = f"{os.getpid()} {id(build)}"
    return f"{name} {digest(source)}"


def make_network(name: str, n_classes: int, size: int, seed: int) -> Network:
    """A freshly initialized network of NETWORKS for images of `size` pixels a side; the global generator stays."""
    build = NETWORKS[name].build
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights", name))
        network = build(n_classes, size)
    return network.to(memory_format=torch.channels_last)
