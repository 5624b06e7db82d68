"""Stage 1, masked autoencoder: dropped patches are painted in again from the kept ones.

Two of them, with one interface (`fill`):
- `MaskedAutoencoder`, small, trained on the data set at hand [ours; patches, positions, encoder of the visible patches,
  mask token and light decoder as He et al., 2022: "Masked Autoencoders Are Scalable Vision Learners"];
- `PretrainedAutoencoder`, ViT-MAE of the `transformers` package [DQ, Section 3.4], for those who have its weights.

Kept patches always come back bit for bit (`reconstruct`).
"""

import json
import time
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
from tqdm.auto import tqdm

from dqas_lib.errors import DataError, InputError
from dqas_lib.images import ImageSet
from dqas_lib.networks import sincos_positions
from dqas_lib.optimisers import AdamW, schedule
from dqas_lib.patches import default_patch_size, grid_of, paste, patch_operator, to_patches
from dqas_lib.seeds import derive, torch_generator
from dqas_lib.store import write_atomically


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


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How a `MaskedAutoencoder` is trained: AdamW, linear warm-up, cosine to zero, error of the dropped patches only.

    steps of batch_size images; thetas: range the share of dropped patches is drawn from, batch by batch, so that one
    autoencoder serves every theta in it; importance_share: share of the images of a batch whose dropped patches are
    the least important ones instead of random ones, since that is how it is used. [ours]
    """

    name: str
    steps: int
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    thetas: tuple[float, float] = (0.1, 0.55)
    importance_share: float = 0.5
    width: int = 64
    depth: int = 2
    decoder_width: int = 64
    decoder_depth: int = 1

    def __post_init__(self) -> None:
        low, high = self.thetas
        if self.steps < 1 or self.batch_size < 1 or not 0 < low <= high < 1 or not 0 <= self.importance_share <= 1:
            raise InputError(
                f"autoencoder recipe {self.name!r}: steps and batch_size must be positive, "
                "0 < thetas[0] <= thetas[1] < 1, importance_share in [0, 1]"
            )


AUTOENCODERS = {
    "quick": AutoencoderRecipe("quick", steps=300, batch_size=32, lr=6e-3, width=32, depth=1, decoder_width=32),
    "small": AutoencoderRecipe("small", steps=3000),
    "long": AutoencoderRecipe("long", steps=30_000, batch_size=256, lr=1e-3),
}


_BLOCK = 4096  # images that errors are measured on at a time: bounds the memory


def get_recipe(recipe: str | AutoencoderRecipe) -> AutoencoderRecipe:
    """An autoencoder recipe by name, or the given one; InputError lists the known names."""
    if isinstance(recipe, AutoencoderRecipe):
        return recipe
    if recipe not in AUTOENCODERS:
        raise InputError(f"unknown autoencoder {recipe!r}: give one of {', '.join(AUTOENCODERS)}")
    return AUTOENCODERS[recipe]


# ------------------------------------------------------------------------------------------------- the network


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
    """Unknown pixels from the known ones around them: a pyramid of averages, then `sweeps` of neighbour means. [ours]

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
        (B, G - K, 3 p p) normalised pixels of the dropped patches, in that order."""
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


# ------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, eq=False)
class AutoencoderTraining:
    """A trained autoencoder, its loss curve (mean squared error of dropped patches, normalised pixels), seconds."""

    autoencoder: MaskedAutoencoder
    steps: np.ndarray
    loss: np.ndarray
    seconds: float


def train_autoencoder(
    images: ImageSet,
    *,
    patch_size: int | None = None,
    recipe: str | AutoencoderRecipe = "small",
    importance: np.ndarray | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> AutoencoderTraining:
    """Train a `MaskedAutoencoder` on a data set. Labels are not used.

    patch_size: pixels a side (default 2, 4, 8 for 8, 32, 64 px); importance: (N, G) of the patches of `images`, for
    masks as they will be (without it smooth random maps stand in). Weights are rounded to half precision at the end:
    they are stored so, and what is reconstructed must not depend on whether it was stored in between.
    On a GPU the products are computed in bfloat16.
    Raises InputError for no images, a patch size that does not divide them, or importance that does not fit.
    """
    recipe, device = get_recipe(recipe), torch.device(device)
    if not len(images):
        raise InputError("an autoencoder needs at least one image to be trained on; got an empty set")
    patch_size = default_patch_size(images.size) if patch_size is None else patch_size
    grid = grid_of(images.size, patch_size)
    shape = Shape(
        images.size,
        int(patch_size),
        recipe.width,
        recipe.depth,
        decoder_width=recipe.decoder_width,
        decoder_depth=recipe.decoder_depth,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights", "autoencoder"))
        model = MaskedAutoencoder(shape)
    model.mean[:] = torch.from_numpy(images.images.mean((0, 1, 2)))
    model.std[:] = max(float(images.images.std()), 1.0)
    model = model.to(device)
    rng = torch_generator(seed, "autoencoder")
    maps = _MaskMaps(importance, len(images), grid, images.mirror, device)
    pixels = torch.from_numpy(images.images).to(device)
    optimiser = AdamW(list(model.parameters()), weight_decay=recipe.weight_decay)
    losses: list[Tensor] = []
    started = time.perf_counter()
    for step in tqdm(range(recipe.steps), desc="autoencoder", disable=not progress, leave=False):
        picks = torch.randint(len(images), (recipe.batch_size,), generator=rng).to(device)
        x, kept = maps.batch(pixels, picks, recipe, rng)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            order, dropped = model(x, kept)
        n_kept = order.shape[1] - dropped.shape[1]
        wanted = _rows(model.cut((x.float() - model.mean) / model.std), order[:, n_kept:])
        loss = functional.mse_loss(dropped, wanted)
        loss.backward()
        optimiser.step(recipe.lr * schedule(step, recipe.steps, recipe.warmup))
        losses.append(loss.detach())
    _round_weights(model)
    model.eval()
    curve = torch.stack(losses).cpu().numpy()
    parts = np.array_split(np.arange(len(curve)), min(50, len(curve)))
    return AutoencoderTraining(
        model,
        steps=np.array([part[-1] + 1 for part in parts]),
        loss=np.array([curve[part].mean() for part in parts]),
        seconds=time.perf_counter() - started,
    )


class _MaskMaps:
    """Draws batches and the patches that are dropped in them."""

    def __init__(self, importance: np.ndarray | None, n: int, grid: int, mirror: bool, device: torch.device) -> None:
        self.grid, self.mirror, self.device = grid, mirror, device
        self.importance = None
        if importance is not None:
            importance = np.asarray(importance, dtype=np.float32)
            if importance.shape != (n, grid * grid):
                raise InputError(f"importance must be ({n}, {grid * grid}); got {importance.shape}")
            spread = importance.std(axis=1, keepdims=True)
            standard = (importance - importance.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
            self.importance = torch.from_numpy(standard)
        else:
            self.smooth = torch.from_numpy(patch_operator(min(4, grid), grid, 1).astype(np.float32))

    def batch(
        self, pixels: Tensor, picks: Tensor, recipe: AutoencoderRecipe, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """(B, H, W, 3) uint8 images, some mirrored, and (B, G) bool with equally many True in every row."""
        n, n_patches = len(picks), self.grid**2
        low, high = recipe.thetas
        theta = low + (high - low) * torch.rand(1, generator=rng).item()
        n_out = min(max(round(theta * n_patches), 1), n_patches - 1)
        noise = torch.randn(n, n_patches, generator=rng)
        if self.importance is None:
            smooth = torch.randn(n, self.smooth.shape[1], generator=rng) @ self.smooth.T
        else:
            smooth = self.importance[picks.cpu()]
        alike = torch.rand(n, 1, generator=rng) < recipe.importance_share
        # a little noise: no two epochs drop exactly the same patches of an image
        score = torch.where(alike, smooth + 0.1 * noise, noise)
        x = pixels[picks]
        if self.mirror:
            flip = torch.rand(n, generator=rng) < 0.5
            mirrored = score.reshape(n, self.grid, self.grid).flip(2).reshape(n, n_patches)
            score = torch.where(flip[:, None], mirrored, score)
            x = torch.where(flip.to(self.device)[:, None, None, None], x.flip(2), x)
        kept = torch.ones(n, n_patches, dtype=torch.bool)
        kept.scatter_(1, score.argsort(dim=1)[:, :n_out], False)
        return x, kept.to(self.device)


def _round_weights(model: nn.Module) -> None:
    """Round what is stored to the half precision it is stored in."""
    with torch.no_grad():
        for part in model.state_dict().values():
            part.copy_(part.half().float())


# ------------------------------------------------------------------------------------------------- use


def reconstruct(
    autoencoder: Autoencoder,
    images: np.ndarray,
    kept: np.ndarray,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 256,
    progress: bool = False,
) -> np.ndarray:
    """(N, H, W, 3) uint8: the kept patches of `images` bit for bit, the dropped ones painted in.

    kept: (N, G) bool, any number of True a row. Images with equally many kept patches are computed together. The last
    bits of a result depend on the machine, the device and the batch: a painted pixel may differ by one level.
    Raises InputError when images or masks do not fit the autoencoder.
    """
    check_fit(autoencoder, images.shape[1])
    kept = np.asarray(kept, dtype=bool)
    n_patches = grid_of(autoencoder.size, autoencoder.patch_size) ** 2
    if kept.shape != (len(images), n_patches):
        raise InputError(f"the masks of {len(images)} images must be {(len(images), n_patches)}; got {kept.shape}")
    counts = kept.sum(axis=1)
    if len(images) and counts.min() < 1:
        raise InputError("an image without a single kept patch cannot be reconstructed: keep at least one")
    device = torch.device(device)
    if isinstance(autoencoder, nn.Module):
        autoencoder = autoencoder.to(device).eval()
    out = images.copy()
    todo = [np.flatnonzero(counts == count) for count in np.unique(counts) if count < n_patches]
    blocks = [rows[i : i + batch_size] for rows in todo for i in range(0, len(rows), batch_size)]
    with torch.inference_mode():
        for rows in tqdm(blocks, desc="reconstruct", disable=not progress, leave=False):
            filled = autoencoder.fill(
                torch.from_numpy(images[rows]).to(device), torch.from_numpy(kept[rows]).to(device)
            )
            filled = filled.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            out[rows] = paste(images[rows], filled, kept[rows])
    return out


def painting_error(
    autoencoder: Autoencoder, images: np.ndarray, *, device: str | torch.device = "cpu", progress: bool = False
) -> np.ndarray:
    """(N, G) float32: how wrong every patch of (N, H, W, 3) uint8 images comes back, mean squared, in grey levels^2.

    Four passes hide a quarter of the patches each, one of every 2 x 2, so that each patch is painted once, from its
    neighbours. [ours] Zeros when an image is a single patch.
    """
    check_fit(autoencoder, images.shape[1])
    grid = grid_of(autoencoder.size, autoencoder.patch_size)
    side = np.arange(grid) % 2
    part = (2 * side[:, None] + side).ravel()
    error = np.zeros((len(images), grid * grid), dtype=np.float32)
    for start in range(0, len(images), _BLOCK):
        block = images[start : start + _BLOCK]
        for hidden in range(4 if grid > 1 else 0):
            kept = np.broadcast_to(part != hidden, (len(block), len(part)))
            painted = reconstruct(autoencoder, block, kept, device=device, progress=progress)
            off = to_patches(painted, autoencoder.patch_size).astype(np.float32)
            off -= to_patches(block, autoencoder.patch_size)
            error[start : start + _BLOCK, part == hidden] = (off**2).mean(axis=(2, 3, 4))[:, part == hidden]
    return error


def check_fit(autoencoder: Autoencoder, size: int) -> None:
    """InputError when the autoencoder was made for images of another size."""
    if autoencoder.size != size:
        raise InputError(
            f"the autoencoder was made for images of {autoencoder.size} px, these have {size} px: train one for them"
        )


# ------------------------------------------------------------------------------------------------- weights as files


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


# ------------------------------------------------------------------------------------------------- pretrained


class PretrainedAutoencoder:
    """A ViT-MAE of the `transformers` package. [DQ, Section 3.4]

    source: a folder or hub name with its weights, e.g. "facebook/vit-mae-base". The image is enlarged so that one of
    its patches covers one patch of the network, and the network's positions are interpolated to that grid.
    Raises InputError when `transformers` is absent or the weights predict normalised patches (they cannot be painted
    back), DataError when the weights cannot be loaded.
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
            reason = str(error).splitlines()[0]
            raise DataError(
                f"no ViT-MAE weights (safetensors) at {str(source)!r} ({reason}): give a folder or hub name with them"
            ) from error
        if model.config.norm_pix_loss:
            raise InputError(
                f"{str(source)!r} predicts normalised patches, whose mean and contrast are lost: "
                "use weights trained with norm_pix_loss=False"
            )
        self.source = str(source)
        self.size = size
        self.patch_size = default_patch_size(size) if patch_size is None else patch_size
        self.grid = grid_of(size, self.patch_size)
        self.model = model.eval()

    def fill(self, images: Tensor, kept: Tensor) -> Tensor:
        """See `Autoencoder.fill`."""
        model = self.model.to(images.device)
        b, n_patches = kept.shape
        p = model.config.patch_size
        model.config.mask_ratio = 1 - (int(kept[0].sum()) + 0.5) / n_patches  # the network keeps int(G (1 - ratio))
        mean = torch.tensor([0.485, 0.456, 0.406], device=images.device) * 255
        std = torch.tensor([0.229, 0.224, 0.225], device=images.device) * 255
        side = self.grid * p
        x = ((images.float() - mean) / std).permute(0, 3, 1, 2)
        mask = kept.reshape(b, 1, self.grid, self.grid).to(x.dtype)
        x = x * mask.repeat_interleave(self.patch_size, 2).repeat_interleave(self.patch_size, 3)
        x = functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        logits = model(x, noise=(~kept).float(), interpolate_pos_encoding=True).logits
        pixels = logits.reshape(b, self.grid, self.grid, p, p, 3).transpose(2, 3).reshape(b, side, side, 3)
        small = functional.interpolate(
            pixels.permute(0, 3, 1, 2), size=(self.size, self.size), mode="bilinear", antialias=True
        )
        return small.permute(0, 2, 3, 1) * std + mean

    def describe(self) -> dict[str, Any]:
        """See `Autoencoder.describe`."""
        return {"kind": "pretrained", "source": self.source, "size": self.size, "patch_size": self.patch_size}
