"""What a trained network says about images: penultimate features and logits, in batches."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from dqas_lib.core.devices import repeatable
from dqas_lib.core.errors import InputError
from dqas_lib.training.networks import Network


def stage_maps(network: Network, images: np.ndarray, device: torch.device, batch_size: int) -> Iterator[Tensor]:
    """(B, d, h, w) float32 feature maps, batch by batch, in evaluation mode; wants `torch.inference_mode`.

    On a GPU the products of the stages are in bfloat16 unless the network was trained in float32; what follows is not:
    pooled in bfloat16, thirty images would share each value of a feature.
    """
    network.eval()
    low = _in_bfloat16(network, device)
    for start in range(0, len(images), batch_size):
        block = torch.from_numpy(np.require(images[start : start + batch_size], requirements=["C", "W"])).to(device)
        with repeatable(device), torch.autocast(device.type, torch.bfloat16, enabled=low):
            maps = network.feature_map(block)
        yield maps.float()


def _in_bfloat16(network: Network, device: torch.device) -> bool:
    return device.type == "cuda" and network.precision != "float32"


def _in_batches(
    function: Callable[[Tensor], Tensor], network: Network, images: np.ndarray, device: torch.device, batch_size: int
) -> np.ndarray:
    with torch.inference_mode():
        outputs = [function(maps.mean((2, 3))) for maps in stage_maps(network, images, device, batch_size)]
        return torch.cat(outputs).cpu().numpy() if outputs else np.zeros((0, 0), dtype=np.float32)


def predict(
    network: Network, images: np.ndarray, *, device: str | torch.device = "cpu", batch_size: int = 512
) -> np.ndarray:
    """(N, C) float32 logits of (N, H, W, 3) uint8 images; the network is left in evaluation mode."""
    return _in_batches(network.head, network, images, torch.device(device), batch_size)


def extract(
    network: Network, images: np.ndarray, *, device: str | torch.device = "cpu", batch_size: int = 512
) -> np.ndarray:
    """(N, d) float32 penultimate activations of (N, H, W, 3) uint8 images; the network is left in evaluation mode."""
    return _in_batches(nn.Identity(), network, images, torch.device(device), batch_size)


def head_logits(network: Network, features: np.ndarray) -> np.ndarray:
    """(N, C) logits of the network's last layer on (N, d) features that `extract` gave."""
    head = network.head
    return features @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()


def check_features(features: np.ndarray | Tensor) -> None:
    """InputError when features are not (N, d), or a value is NaN or infinite."""
    if features.ndim != 2:
        raise InputError(f"features must be (N, d); got shape {tuple(features.shape)}")
    finite = features.isfinite() if isinstance(features, Tensor) else np.isfinite(features)
    bad = ~np.asarray(finite.all(1).cpu() if isinstance(finite, Tensor) else finite.all(1))
    if bad.any():
        raise InputError(
            f"features of {bad.sum()} of {len(features)} images are NaN or infinite (first: row {bad.argmax()})"
        )


def unit_rows(features: np.ndarray) -> np.ndarray:
    """(N, d) float32 rows scaled to length 1; rows of zeros stay zeros. Checked by `check_features`."""
    features = np.asarray(features)
    check_features(features)
    features = features.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("ij,ij->i", features, features, dtype=np.float64))
    return features / np.where(norms > 0, norms, 1).astype(np.float32)[:, None]
