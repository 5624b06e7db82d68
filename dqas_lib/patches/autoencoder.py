"""Autoencoders: what reconstructs dropped patches from the kept ones, and a small one trained on the data at hand.

`MaskedAutoencoder` [ours; its parts as in MAE: He et al., 2022] and `PretrainedAutoencoder` [DQ] share `Autoencoder`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.patches.masks import default_patch_size, from_patches, grid_of, pixel_mask, to_patches
from dqas_lib.training.networks import sincos_positions


@runtime_checkable
class Autoencoder(Protocol):
    """What can reconstruct dropped patches of images of one size."""

    size: int
    patch_size: int

    def fill(self, images: Tensor, kept: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 images, (B, G) bool with equally many True in every row -> (B, H, W, 3) float, 0 ... 255.

        What it gives for dropped patches must not depend on their pixels; what it gives for kept ones is not used.
        """

    def describe(self) -> dict[str, Any]:
        """Kind and settings as plain values."""


@dataclass(frozen=True)
class Shape:
    """Size of a `MaskedAutoencoder` [ours; MAE's ViT-Base has width 768, depth 12, decoder 512 x 8]."""

    size: int
    patch_size: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    decoder_width: int = 64
    decoder_depth: int = 1

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return grid_of(self.size, self.patch_size)


class _Block(nn.Module):
    """Pre-norm transformer block [MAE; ReLU: ours]; nn.TransformerEncoderLayer takes 1.2 times as long on a CPU."""

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
    """Unknown pixels from the known ones around them: a pyramid of averages, then `sweeps` of neighbor means [ours].

    x: (B, c, H, W); mask: (B, 1, H, W), 1 where known. The result equals x there and does not depend on x elsewhere.
    """
    levels = [(x * mask, mask)]
    while levels[-1][1].shape[-1] % 2 == 0 and levels[-1][1].shape[-1] > 1:
        value, weight = levels[-1]
        levels.append((functional.avg_pool2d(value, 2), functional.avg_pool2d(weight, 2)))
    value, weight = levels.pop()
    total = value.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
    filled = torch.where(weight > 0, value / weight.clamp_min(1e-6), total)
    while levels:
        value, weight = levels.pop()
        coarse = functional.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        filled = value + (1 - weight) * coarse
    for _ in range(sweeps):
        around = functional.pad(filled, (1, 1, 1, 1), mode="replicate")
        mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
        filled = torch.where(mask == 0, mean / 4, filled)
    return filled


class MaskedAutoencoder(nn.Module):
    """A small masked autoencoder: its encoder sees the kept patches only, a light decoder adds the dropped ones.

    A dropped patch enters the decoder as mask token + position + its `smooth_fill`, and what comes out is added to the
    filling. [ours: minutes of training would otherwise be spent on learning to interpolate]
    """

    mean: Tensor
    std: Tensor
    positions: Tensor
    decoder_positions: Tensor

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
        """(B, H, W, 3) images 0 ... 255 -> (B, G, 3 p p) normalized pixels of their patches."""
        return to_patches((images.float() - self.mean) / self.std, self.patch_size).flatten(2)

    def forward(self, images: Tensor, kept: Tensor, n_kept: int | None = None) -> tuple[Tensor, Tensor]:
        """Images and (B, G) masks -> (B, G) patch numbers, dropped ones last, and their (B, G - K, 3 p p) pixels.

        n_kept: K, where it is known: to look at a mask on a GPU is to wait for it.
        """
        n_kept = int(kept[0].sum()) if n_kept is None else n_kept
        x = ((images.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        filled = smooth_fill(x, pixel_mask(kept, self.size)[:, None].to(x.dtype)).permute(0, 2, 3, 1)
        patches = to_patches(filled, self.patch_size).flatten(2)
        order = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)
        seen, hidden = order[:, :n_kept], order[:, n_kept:]
        tokens = self.embed(patches.take_along_dim(seen[..., None], 1)) + self.positions[seen]
        code = self.bridge(self.encoder_norm(self.encoder(tokens)))
        first = patches.take_along_dim(hidden[..., None], 1)
        unknown = self.mask_token + self.guess(first)
        both = torch.cat([code, unknown.to(code.dtype)], dim=1) + self.decoder_positions[order]
        decoded = self.decoder(both)[:, n_kept:]
        return order, first + self.head(self.decoder_norm(decoded)).float()

    def fill(self, images: Tensor, kept: Tensor) -> Tensor:
        """See `Autoencoder.fill`."""
        order, dropped = self(images, kept)
        index = order[:, order.shape[1] - dropped.shape[1] :, None].expand_as(dropped)
        patches = self.cut(images).scatter(1, index, dropped)
        return from_patches(patches.unflatten(2, (self.patch_size, self.patch_size, 3))) * self.std + self.mean

    def describe(self) -> dict[str, Any]:
        """See `Autoencoder.describe`."""
        return {"kind": "small", **asdict(self.shape)}


def to_bytes(model: MaskedAutoencoder) -> bytes:
    """The autoencoder as the content of a .safetensors file: half-precision weights, its shape as metadata."""
    tensors = {name: value.half().contiguous().cpu() for name, value in model.state_dict().items()}
    return safetensors.torch.save(tensors, metadata={"dqas_autoencoder": json.dumps(asdict(model.shape))})


def from_bytes(content: bytes, *, name: str = "autoencoder") -> MaskedAutoencoder:
    """The autoencoder in the content of a .safetensors file. Raises DataError naming the file when it holds none."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
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


class PretrainedAutoencoder:
    """A ViT-MAE, from a folder or hub name with its weights, e.g. "facebook/vit-mae-base"; sizes in pixels [DQ].

    The image is enlarged so that its patches are the network's, whose positions are interpolated to that grid.

    Raises:
        InputError: When `transformers` is absent, or the weights predict normalized patches (they cannot be put back).
        DataError: When the weights cannot be loaded.
    """

    def __init__(self, source: str | Path, *, size: int, patch_size: int | None = None) -> None:
        try:
            from transformers import ViTMAEForPreTraining
        except ImportError as error:
            raise InputError(
                "the pretrained autoencoder needs the package transformers, which is not installed: "
                "pip install 'dqas-kit[pretrained]', or use the small one"
            ) from error
        try:
            model = ViTMAEForPreTraining.from_pretrained(str(source), use_safetensors=True)
        except (OSError, ValueError) as error:
            why = f"no ViT-MAE weights (safetensors) at {str(source)!r} ({str(error).splitlines()[0]})"
            raise DataError(f"{why}: give a folder or hub name with them") from error
        if model.config.norm_pix_loss:
            raise InputError(
                f"{str(source)!r} predicts normalized patches, whose mean and contrast are lost: "
                "use weights trained with norm_pix_loss=False"
            )
        self.source, self.size, self.model = str(source), size, model.eval()
        self.patch_size = default_patch_size(size) if patch_size is None else patch_size
        self.grid = grid_of(size, self.patch_size)

    def fill(self, images: Tensor, kept: Tensor) -> Tensor:
        """See `Autoencoder.fill`."""
        model, p = self.model.to(images.device), self.model.config.patch_size
        model.config.mask_ratio = 1 - (int(kept[0].sum()) + 0.5) / kept.shape[1]  # it keeps int(G (1 - ratio))
        mean, std = 255 * torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=images.device)
        x = ((images.float() - mean) / std).permute(0, 3, 1, 2)
        x = x * pixel_mask(kept, self.size)[:, None].to(x.dtype)
        x = functional.interpolate(x, size=self.grid * p, mode="bilinear", align_corners=False)
        logits = model(x, noise=(~kept).float(), interpolate_pos_encoding=True).logits
        pixels = from_patches(logits.unflatten(2, (p, p, 3))).permute(0, 3, 1, 2)
        small = functional.interpolate(pixels, size=self.size, mode="bilinear", antialias=True)
        return small.permute(0, 2, 3, 1) * std + mean

    def describe(self) -> dict[str, Any]:
        """See `Autoencoder.describe`."""
        return {"kind": "pretrained", "source": self.source, "size": self.size, "patch_size": self.patch_size}
