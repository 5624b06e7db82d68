"""A pretrained autoencoder: ViT-MAE of the `transformers` package [DQ], for those who have its weights."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dqas_lib.core.errors import DataError, InputError
from dqas_lib.patches.masks import default_patch_size, from_patches, grid_of, pixel_mask


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
            text = f"no ViT-MAE weights (safetensors) at {str(source)!r} ({str(error).splitlines()[0]})"
            raise DataError(f"{text}: give a folder or hub name with them") from error
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
        model = self.model.to(images.device)
        p = model.config.patch_size
        model.config.mask_ratio = 1 - (int(kept[0].sum()) + 0.5) / kept.shape[1]  # it keeps int(G (1 - ratio))
        mean = torch.tensor([0.485, 0.456, 0.406], device=images.device) * 255
        std = torch.tensor([0.229, 0.224, 0.225], device=images.device) * 255
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
