"""Training the small autoencoder on an `ImageSet` by a recipe; `AUTOENCODERS` holds the recipes by name."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from dqas_lib.core.checks import check_fields
from dqas_lib.core.devices import repeatable
from dqas_lib.core.errors import InputError
from dqas_lib.core.registry import Registry
from dqas_lib.core.seeds import derive, torch_generator
from dqas_lib.data.image_set import ImageSet
from dqas_lib.patches.autoencoder import MaskedAutoencoder, Shape
from dqas_lib.patches.importance import patch_operator
from dqas_lib.patches.masks import default_patch_size
from dqas_lib.training.recipes import schedule
from dqas_lib.training.train import clipped_adamw


@dataclass(frozen=True)
class AutoencoderRecipe:
    """How a `MaskedAutoencoder` is trained: AdamW, linear warm-up, cosine to zero, error of the dropped patches only.

    Args:
        thetas: Range the fraction of dropped patches is drawn from, batch by batch: one autoencoder serves all. [ours]
        importance_fraction: Fraction of a batch whose dropped patches are the least important, not random ones. [ours]
    """

    name: str
    steps: int
    batch_size: int = 64
    lr: float = 4e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    thetas: tuple[float, float] = (0.1, 0.55)
    importance_fraction: float = 0.5
    width: int = 64
    depth: int = 2
    decoder_width: int = 64
    decoder_depth: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        low, high = self.thetas if len(self.thetas) == 2 else (1.0, 0.0)
        if self.steps < 1 or self.batch_size < 1 or not 0 < low <= high < 1 or not 0 <= self.importance_fraction <= 1:
            raise InputError(
                f"autoencoder recipe {self.name!r}: steps and batch_size must be positive, "
                "0 < thetas[0] <= thetas[1] < 1, importance_fraction in [0, 1]; "
                f"got {self!r}"
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


def train_autoencoder(
    images: ImageSet,
    *,
    patch_size: int | None = None,
    recipe: str | AutoencoderRecipe = "small",
    importance: np.ndarray | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> tuple[MaskedAutoencoder, np.ndarray]:
    """Train a `MaskedAutoencoder` on a data set, without its labels; on a GPU in bfloat16. Gives its losses too.

    Losses: (steps,) mean squared errors of dropped patches (normalized pixels). Weights are rounded to half precision
    at the end, as they are stored. patch_size: default 2, 4, 8 for 8, 32, 64 px; importance: (N, G), else smooth random
    maps stand in. InputError for no images, or what does not fit them.
    """
    recipe, device = get_recipe(recipe), torch.device(device)
    if not len(images):
        raise InputError("an autoencoder needs at least one image to be trained on; got an empty set")
    patch_size = default_patch_size(images.size) if patch_size is None else int(patch_size)
    wide, deep = recipe.decoder_width, recipe.decoder_depth
    shape = Shape(images.size, patch_size, recipe.width, recipe.depth, decoder_width=wide, decoder_depth=deep)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights", "autoencoder"))
        model = MaskedAutoencoder(shape)
    model.mean[:] = torch.from_numpy(images.images.mean((0, 1, 2)))
    model.std[:] = max(float(images.images.std()), 1.0)
    model = model.to(device)
    batches = _batches(images, shape.grid, importance, recipe, device, torch_generator(seed, "autoencoder"))
    update = clipped_adamw(model.parameters(), weight_decay=recipe.weight_decay)
    losses: list[Tensor] = []
    for step in tqdm(range(recipe.steps), desc="autoencoder", disable=not progress, leave=False):
        x, kept, n_kept = next(batches)
        with repeatable(device):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                order, dropped = model(x, kept, n_kept)
            truth = model.cut(x).take_along_dim(order[:, -dropped.shape[1] :, None], 1)
            loss = functional.mse_loss(dropped, truth)
            loss.backward()
        update(recipe.lr * schedule(step, recipe.steps, recipe.warmup))
        losses.append(loss.detach())
    with torch.no_grad():
        for part in model.state_dict().values():
            part.copy_(part.half().float())
    return model.eval(), torch.stack(losses).cpu().numpy()


def _batches(
    images: ImageSet,
    grid: int,
    importance: np.ndarray | None,
    recipe: AutoencoderRecipe,
    device: torch.device,
    rng: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(B, H, W, 3) uint8 images, some mirrored, and (B, G) bool with K True in every row, and K; without end."""
    n, n_patches, (low, high) = recipe.batch_size, grid**2, recipe.thetas
    pixels = torch.from_numpy(images.images).to(device)
    smooth = torch.from_numpy(patch_operator(min(4, grid), grid, 1).astype(np.float32))
    if importance is not None:
        importance, shape = np.asarray(importance, dtype=np.float32), (len(images), n_patches)
        if importance.shape != shape:
            raise InputError(f"importance must be {shape}; got {importance.shape}")
        spread = importance.std(axis=1, keepdims=True)
        importance = (importance - importance.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    standard = None if importance is None else torch.from_numpy(importance)
    while True:
        picks = torch.randint(len(images), (n,), generator=rng)
        theta = low + (high - low) * torch.rand(1, generator=rng).item()
        n_out = min(max(round(theta * n_patches), 1), n_patches - 1)
        noise = torch.randn(n, n_patches, generator=rng)
        maps = torch.randn(n, smooth.shape[1], generator=rng) @ smooth.T if standard is None else standard[picks]
        by_importance = torch.rand(n, 1, generator=rng) < recipe.importance_fraction
        # a little noise: no two epochs drop exactly the same patches of an image
        score = torch.where(by_importance, maps + 0.1 * noise, noise)
        x = pixels[picks.to(device)]
        if images.mirror:
            flip = torch.rand(n, generator=rng) < 0.5
            score = torch.where(flip[:, None], score.unflatten(1, (grid, grid)).flip(2).flatten(1), score)
            x = torch.where(flip.to(device)[:, None, None, None], x.flip(2), x)
        kept = torch.ones(n, n_patches, dtype=torch.bool).scatter_(1, score.argsort(dim=1)[:, :n_out], False)
        yield x, kept.to(device, non_blocking=True), n_patches - n_out
