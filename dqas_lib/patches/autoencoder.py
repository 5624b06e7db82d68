"""Stage 1, masked autoencoder: dropped patches are painted in again from the kept ones.

Two of them, with one interface (`fill`):
- `MaskedAutoencoder`, small, trained on the data set at hand [ours; patches, positions, encoder of the visible patches,
  mask token and light decoder as He et al., 2022: "Masked Autoencoders Are Scalable Vision Learners"];
- `PretrainedAutoencoder`, ViT-MAE of the `transformers` package [DQ, Section 3.4], for those who have its weights.

Kept patches always come back bit for bit (`reconstruct`).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.core.files import write_atomically
from dqas_lib.patches.masks import grid_of
from dqas_lib.training.networks import sincos_positions


class Autoencoder(Protocol):
    """What can paint in dropped patches of images of one size."""

    size: int
    patch_size: int

    def fill(self, images: Tensor, kept: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 images, (B, G) bool with equally many True in every row -> (B, H, W, 3) float, 0 ... 255.

        What it gives for dropped patches must not depend on their pixels; what it gives for kept ones is not used.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Kind and settings as plain values."""
        ...


@dataclass(frozen=True)
class Shape:
    """Size of a `MaskedAutoencoder`. [ours; the paper's ViT-Base has width 768, depth 12, decoder 512 x 8]"""

    size: int
    patch_size: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    decoder_width: int = 64
    decoder_depth: int = 1

    @property
    def grid(self) -> int:
        return grid_of(self.size, self.patch_size)


class _Block(nn.Module):
    """Pre-norm transformer block, MLP four times as wide. [MAE, ViT; ReLU for their GELU, faster on a CPU: ours]"""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, width))
        return x + self.mlp(self.norm2(x))


def smooth_fill(x: Tensor, mask: Tensor, *, sweeps: int = 12) -> Tensor:
    """Unknown pixels from the known ones around them: a pyramid of averages, then `sweeps` of neighbor means. [ours]

    x: (B, c, H, W); mask: (B, 1, H, W), 1 where known. The result equals x there and does not depend on x elsewhere.
    """
    known = x * mask
    levels = [(known, mask)]
    while levels[-1][1].shape[-1] % 2 == 0 and levels[-1][1].shape[-1] > 1:
        levels.append(tuple(functional.avg_pool2d(part, 2) for part in levels[-1]))
    value, weight = levels.pop()
    total = value.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    filled = torch.where(weight > 0, value / weight.clamp_min(1e-6), total)
    while levels:
        value, weight = levels.pop()
        coarse = functional.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        filled = value + (1 - weight) * coarse
    unknown = mask == 0
    for _ in range(sweeps):
        around = functional.pad(filled, (1, 1, 1, 1), mode="replicate")
        mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
        filled = torch.where(unknown, mean / 4, filled)
    return filled


class MaskedAutoencoder(nn.Module):
    """A small masked autoencoder: the encoder sees the kept patches only, a light decoder paints in the dropped ones.

    The decoder starts from `smooth_fill` and learns what that lacks: a dropped patch enters as mask token + position +
    its smooth filling, and what comes out is added to the filling. [ours: an autoencoder trained for minutes on one
    data set would otherwise spend them on learning to interpolate]
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape, self.size, self.patch_size = shape, shape.size, shape.patch_size
        values = 3 * shape.patch_size**2
        self.embed = nn.Linear(values, shape.width)
        self.encoder = nn.Sequential(*(_Block(shape.width, shape.heads) for _ in range(shape.depth)))
        self.encoder_norm = nn.LayerNorm(shape.width)
        self.bridge = nn.Linear(shape.width, shape.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(shape.decoder_width))
        self.guess = nn.Linear(values, shape.decoder_width, bias=False)
        self.decoder = nn.Sequential(*(_Block(shape.decoder_width, shape.heads) for _ in range(shape.decoder_depth)))
        self.decoder_norm = nn.LayerNorm(shape.decoder_width)
        self.head = nn.Linear(shape.decoder_width, values)
        self.register_buffer("mean", torch.full((3,), 127.5))
        self.register_buffer("std", torch.full((3,), 64.0))
        self.register_buffer("positions", sincos_positions(shape.grid, shape.width), persistent=False)
        self.register_buffer("decoder_positions", sincos_positions(shape.grid, shape.decoder_width), persistent=False)
        nn.init.normal_(self.mask_token, std=0.02)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def cut(self, images: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, G, 3 p p)."""
        b, grid, p = len(images), self.shape.grid, self.patch_size
        return images.reshape(b, grid, p, grid, p, 3).transpose(2, 3).reshape(b, grid * grid, p * p * 3)

    def join(self, patches: Tensor) -> Tensor:
        """(B, G, 3 p p) -> (B, H, W, 3)."""
        b, grid, p = len(patches), self.shape.grid, self.patch_size
        return patches.reshape(b, grid, grid, p, p, 3).transpose(2, 3).reshape(b, grid * p, grid * p, 3)

    def forward(self, images: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, 3) images 0 ... 255 and (B, G) bool -> (B, G) patch numbers, dropped ones last, and
        (B, G - K, 3 p p) normalized pixels of the dropped patches, in that order."""
        b = len(images)
        n_kept = int(kept[0].sum())
        x = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        scale = self.patch_size
        mask = kept.reshape(b, 1, self.shape.grid, self.shape.grid).to(x.dtype)
        mask = mask.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        patches = self.cut(smooth_fill(x, mask).permute(0, 2, 3, 1))
        order = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)
        seen, hidden = order[:, :n_kept], order[:, n_kept:]
        tokens = self.embed(_rows(patches, seen)) + self.positions[seen]
        code = self.bridge(self.encoder_norm(self.encoder(tokens)))
        first = _rows(patches, hidden)
        unknown = self.mask_token + self.guess(first)
        both = torch.cat([code, unknown.to(code.dtype)], dim=1) + self.decoder_positions[order]
        decoded = self.decoder(both)[:, n_kept:]
        return order, first + self.head(self.decoder_norm(decoded)).float()

    def fill(self, images: Tensor, kept: Tensor) -> Tensor:
        """See `Autoencoder.fill`."""
        order, dropped = self(images, kept)
        n_kept = order.shape[1] - dropped.shape[1]
        patches = self.cut((images.float() - self.mean) / self.std)
        index = order[:, n_kept:, None].expand_as(dropped)
        return self.join(patches.scatter(1, index, dropped)) * self.std + self.mean

    def describe(self) -> dict[str, Any]:
        """See `Autoencoder.describe`."""
        return {"kind": "small", **asdict(self.shape)}


def _rows(tokens: Tensor, numbers: Tensor) -> Tensor:
    """tokens[b, numbers[b, i]] as (B, len, d)."""
    return tokens.gather(1, numbers[..., None].expand(-1, -1, tokens.shape[2]))


def to_bytes(model: MaskedAutoencoder) -> bytes:
    """The autoencoder as the content of a .safetensors file: half-precision weights, its shape as metadata."""
    tensors = {name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={"dqas_autoencoder": json.dumps(asdict(model.shape))})


def from_bytes(content: bytes, *, name: str = "autoencoder") -> MaskedAutoencoder:
    """The autoencoder in the content of a .safetensors file. Raises DataError naming the file when it holds none."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        shape = Shape(**json.loads(header["__metadata__"]["dqas_autoencoder"]))
        tensors = safetensors.torch.load(content)
        _check_size(shape, sum(tensor.numel() for tensor in tensors.values()))
        model = MaskedAutoencoder(shape)
        model.load_state_dict({key: value.float() for key, value in tensors.items()})
    except (SafetensorError, InputError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name} holds no autoencoder of this library ({reason}): train or fetch it again") from error
    return model.eval()


def _check_size(shape: Shape, there: int) -> None:
    """ValueError for a shape that `there` weights cannot fill: a hostile file must not make a network of any size."""
    if not all(type(value) is int and 0 < value <= 2**16 for value in asdict(shape).values()):
        raise ValueError(f"not a shape: {shape}")
    claimed = 4 * (shape.depth * shape.width**2 + shape.decoder_depth * shape.decoder_width**2)  # attention alone
    if claimed > there or shape.grid > 64:
        raise ValueError(f"{shape} has {claimed:,} weights or more, {there:,} are there")


def save_autoencoder(model: MaskedAutoencoder, path: str | Path) -> None:
    """Write the autoencoder as a .safetensors file."""
    write_atomically(Path(path), to_bytes(model))


def load_autoencoder(path: str | Path) -> MaskedAutoencoder:
    """Read what `save_autoencoder` wrote. Raises DataError when the file is missing or something else."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no autoencoder at {path}: give the path of an existing .safetensors file")
    return from_bytes(path.read_bytes(), name=str(path))


def to_arrays(model: MaskedAutoencoder) -> dict[str, np.ndarray]:
    """The autoencoder as one array of bytes, for the store."""
    return {"safetensors": np.frombuffer(to_bytes(model), dtype=np.uint8)}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> MaskedAutoencoder:
    """The inverse of `to_arrays`."""
    return from_bytes(arrays["safetensors"].tobytes())
