"""What a user would do without the library, written plainly: the other side of each ratio."""

import time

import numpy as np
import torch
from torch.nn import functional


def naive_graph_cut(z: np.ndarray, n_picks: int) -> np.ndarray:
    """Greedy GraphCut as DQ's public code does it: the n x n kernel, and for every pick the gains of all rows anew, by
    summing the rows of the kernel that are picked. float64 throughout, so that picks can be compared."""
    z = z.astype(np.float64)
    kernel = 0.5 + 0.5 * z @ z.T
    typical = kernel.sum(axis=0)
    selected, order = np.zeros(len(z), dtype=bool), []
    gains = np.zeros(len(z))
    for _ in range(n_picks):
        gains[~selected] = typical[~selected] - 2 * kernel[np.ix_(selected, ~selected)].sum(axis=0)
        best = int(gains.argmax())
        order.append(best)
        selected[best] = True
        gains[best] = -np.inf
    return np.array(order)


class Photographs(torch.utils.data.Dataset):
    """uint8 images behind torchvision transforms, as in torchvision's own CIFAR10."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class Normalised(torch.nn.Module):
    """The library's network behind images that a transform has normalized already, (B, 3, H, W)."""

    def __init__(self, network) -> None:
        super().__init__()
        self.stages, self.head = network.stages, network.head

    def forward(self, x):
        return self.head(self.stages(x).mean((2, 3)))


def plain_training(images, network, *, batch_size: int, steps: int, workers: int) -> float:
    """Images a second of the textbook loop: DataLoader, random crop, mirror, normalization, SGD; after 10 steps."""
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomCrop(images.size, padding=images.size // 8),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        ]
    )
    loader = torch.utils.data.DataLoader(
        Photographs(images.images, images.labels, transform),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )
    model = Normalised(network.to(memory_format=torch.contiguous_format)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    warm, started = 10, 0.0
    for done, (x, y) in enumerate(loader, start=1):
        if done == warm + 1:
            started = time.perf_counter()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
        if done == warm + steps:
            return steps * batch_size / (time.perf_counter() - started)
    raise ValueError(f"{len(images)} images are too few for {warm + steps} batches of {batch_size}")
