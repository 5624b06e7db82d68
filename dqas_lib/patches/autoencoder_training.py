"""TODO."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.core.seeds import derive, torch_generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import MaskedAutoencoder, Shape, _rows
from dqas_lib.patches.importance import patch_operator
from dqas_lib.patches.masks import default_patch_size, grid_of
from dqas_lib.training.recipes import schedule
from dqas_lib.training.train import clipped_adamw


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


AUTOENCODERS: Registry[AutoencoderRecipe] = Registry("autoencoder")
AUTOENCODERS.register(
    AutoencoderRecipe("quick", steps=300, batch_size=32, lr=6e-3, width=32, depth=1, decoder_width=32)
)
AUTOENCODERS.register(AutoencoderRecipe("small", steps=3000))
AUTOENCODERS.register(AutoencoderRecipe("long", steps=30_000, batch_size=256, lr=1e-3))


def get_recipe(recipe: str | AutoencoderRecipe) -> AutoencoderRecipe:
    """An autoencoder recipe by name, or the given one; InputError lists the known names."""
    return recipe if isinstance(recipe, AutoencoderRecipe) else AUTOENCODERS[recipe]


@dataclass(frozen=True, eq=False)
class AutoencoderTraining:
    """A trained autoencoder, its loss curve (mean squared error of dropped patches, normalized pixels), seconds."""

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
    update = clipped_adamw(list(model.parameters()), weight_decay=recipe.weight_decay)
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
        update(recipe.lr * schedule(step, recipe.steps, recipe.warmup))
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
